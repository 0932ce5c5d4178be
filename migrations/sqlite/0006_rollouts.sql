-- A candidate and its promotion are revisions too. SQLite can't widen a CHECK in place: the table is copied.
CREATE TABLE policy_revisions_wider (
    revision    INTEGER PRIMARY KEY,
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    action      TEXT    NOT NULL CHECK (action IN ('create', 'update', 'delete', 'rollback', 'candidate', 'promote')),
    definition  BLOB    NOT NULL,
    sha256      BLOB    NOT NULL,
    author      TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    at_us       INTEGER NOT NULL
) STRICT;

INSERT INTO policy_revisions_wider (revision, namespace, name, action, definition, sha256, author, message, at_us)
SELECT revision, namespace, name, action, definition, sha256, author, message, at_us FROM policy_revisions;

DROP TABLE policy_revisions;

ALTER TABLE policy_revisions_wider RENAME TO policy_revisions;

CREATE INDEX policy_revisions_by_name ON policy_revisions (namespace, name, revision);

-- Rollouts, those in progress and those that have ended. The candidate is the revision of this number; `spec` is an encoded
-- fusebox.v1.RolloutSpec. `since_us` is when the present stage, or what came after a pause, began; `stage_revision` the revision at which
-- the set of selected replicas became what it is.
CREATE TABLE rollouts (
    candidate       INTEGER PRIMARY KEY,
    namespace       TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    stable          INTEGER,
    spec            BLOB    NOT NULL,
    stage           INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('running', 'paused', 'promoted', 'aborted')),
    reason          TEXT    NOT NULL,
    since_us        INTEGER NOT NULL,
    stage_revision  INTEGER NOT NULL,
    author          TEXT    NOT NULL,
    message         TEXT    NOT NULL,
    created_us      INTEGER NOT NULL,
    changed_us      INTEGER NOT NULL
) STRICT;

CREATE INDEX rollouts_by_policy ON rollouts (namespace, name, candidate);

-- One in progress of each policy.
CREATE UNIQUE INDEX rollouts_in_progress ON rollouts (namespace, name) WHERE state IN ('running', 'paused');
