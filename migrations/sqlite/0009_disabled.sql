-- Operators may disable breakers beside forcing them. A program that does not know it could not read such a row: this step keeps it from
-- opening the database.
CREATE TABLE overrides_of_three (
    id           INTEGER PRIMARY KEY,
    namespace    TEXT    NOT NULL,
    caller       TEXT    NOT NULL,
    policy       TEXT    NOT NULL,
    strategy     TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    zone         TEXT    NOT NULL,
    effect       TEXT    NOT NULL CHECK (effect IN ('open', 'closed', 'disabled')),
    reason       TEXT    NOT NULL,
    author       TEXT    NOT NULL,
    created_us   INTEGER NOT NULL,
    expires_us   INTEGER NOT NULL,
    ended_us     INTEGER,
    end_reason   TEXT
) STRICT;

INSERT INTO overrides_of_three SELECT * FROM overrides;

DROP TABLE overrides;

ALTER TABLE overrides_of_three RENAME TO overrides;

CREATE INDEX overrides_in_force ON overrides (ended_us) WHERE ended_us IS NULL;
