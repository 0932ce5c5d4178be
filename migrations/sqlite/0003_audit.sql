-- Who changed what, when, from where and why, and what the fleet decided by itself. A row is written with the change that it tells of, and
-- never changed; the oldest go when their time is over. `hash` is over the row before and everything in this one.
CREATE TABLE audit (
    id              INTEGER PRIMARY KEY,
    at_us           INTEGER NOT NULL,
    actor           TEXT    NOT NULL,
    authentication  TEXT    NOT NULL,
    address         TEXT    NOT NULL,
    request_id      TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    object          TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    revision        INTEGER NOT NULL,
    before          TEXT,
    after           TEXT,
    hash            BLOB    NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at_us);
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_object ON audit (object, id);

-- Both ends of the chain of hashes: the row before the oldest that is kept, and the newest.
CREATE TABLE audit_chain (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    dropped_id    INTEGER NOT NULL,
    dropped_hash  BLOB    NOT NULL,
    last_id       INTEGER NOT NULL,
    last_hash     BLOB    NOT NULL
) STRICT;

INSERT INTO audit_chain (id, dropped_id, dropped_hash, last_id, last_hash) VALUES (1, 0, zeroblob(32), 0, zeroblob(32));
