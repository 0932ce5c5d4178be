-- What the server itself must remember. `term` fences the verdicts of its runs.
CREATE TABLE server (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    store_id   TEXT    NOT NULL,
    term       INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT;

-- The policies in force. `definition` is an encoded fusebox.v1.Policy, `sha256` its digest, checked at each load.
CREATE TABLE policies (
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    definition  BLOB    NOT NULL,
    sha256      BLOB    NOT NULL,
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT;

-- Every change that was ever made, for history and rollback. Rows are only added.
CREATE TABLE policy_revisions (
    revision    INTEGER PRIMARY KEY,
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    action      TEXT    NOT NULL CHECK (action IN ('create', 'update', 'delete', 'rollback')),
    definition  BLOB    NOT NULL,
    sha256      BLOB    NOT NULL,
    author      TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    at_us       INTEGER NOT NULL
) STRICT;

CREATE INDEX policy_revisions_by_name ON policy_revisions (namespace, name, revision);

-- Operators' words about breakers. An empty part of the pattern matches everything. Ended ones stay for the record.
CREATE TABLE overrides (
    id           INTEGER PRIMARY KEY,
    namespace    TEXT    NOT NULL,
    caller       TEXT    NOT NULL,
    policy       TEXT    NOT NULL,
    strategy     TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    zone         TEXT    NOT NULL,
    effect       TEXT    NOT NULL CHECK (effect IN ('open', 'closed')),
    reason       TEXT    NOT NULL,
    author       TEXT    NOT NULL,
    created_us   INTEGER NOT NULL,
    expires_us   INTEGER NOT NULL,
    ended_us     INTEGER,
    end_reason   TEXT
) STRICT;

CREATE INDEX overrides_in_force ON overrides (ended_us) WHERE ended_us IS NULL;

-- State changes of replicas' breakers, and the fleet's decisions (no instance).
CREATE TABLE transitions (
    id               INTEGER PRIMARY KEY,
    namespace        TEXT    NOT NULL,
    caller           TEXT    NOT NULL,
    policy           TEXT    NOT NULL,
    strategy         TEXT    NOT NULL,
    target           TEXT    NOT NULL,
    zone             TEXT    NOT NULL,
    instance         TEXT    NOT NULL,
    from_state       TEXT    NOT NULL,
    to_state         TEXT    NOT NULL,
    cause            TEXT    NOT NULL,
    detail           TEXT    NOT NULL,
    at_us            INTEGER NOT NULL,
    window_calls     INTEGER NOT NULL,
    window_failures  INTEGER NOT NULL
) STRICT;

CREATE INDEX transitions_by_target ON transitions (target, id);
