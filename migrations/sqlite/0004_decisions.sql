-- Why the fleet decided what it did about a breaker, or what held it back: for people who ask later. A row is written anew while a guard
-- goes on holding the same opening back. `run` and `number` name the decision; `decision` is a fusebox.v1.BreakerDecision without ages.
-- The newest of each breaker are kept, and so many in all; older rows are removed.
CREATE TABLE decisions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    run        TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    namespace  TEXT    NOT NULL,
    caller     TEXT    NOT NULL,
    policy     TEXT    NOT NULL,
    strategy   TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    zone       TEXT    NOT NULL,
    since_us   INTEGER NOT NULL,
    until_us   INTEGER NOT NULL,
    decision   BLOB    NOT NULL,
    UNIQUE (run, number)
) STRICT;

CREATE INDEX decisions_by_breaker ON decisions (target, caller, policy, strategy, namespace, zone, id);
