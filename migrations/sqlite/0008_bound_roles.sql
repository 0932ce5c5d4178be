-- Viewers, operators and admins may be bound to a namespace. A program that does not know it would take such a token for one of all
-- namespaces: this step keeps it from opening the database.
CREATE TABLE bound_tokens (
    id             TEXT    PRIMARY KEY,
    -- One token in force of each name in each namespace.
    name           TEXT    NOT NULL,
    sha256         BLOB    NOT NULL,
    role           TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'agent')),
    -- The one that the role goes over; empty for all of them.
    namespace      TEXT    NOT NULL,
    -- Of an agent; empty otherwise.
    service        TEXT    NOT NULL,
    creator        TEXT    NOT NULL,
    created_us     INTEGER NOT NULL,
    expires_us     INTEGER NOT NULL,
    revoked_us     INTEGER,
    revoker        TEXT,
    revoke_reason  TEXT,
    CHECK ((role = 'agent') = (service <> '')),
    CHECK (role <> 'agent' OR namespace <> '')
) STRICT;

-- In the order in which they were made.
INSERT INTO bound_tokens SELECT * FROM tokens ORDER BY rowid;

DROP TABLE tokens;

ALTER TABLE bound_tokens RENAME TO tokens;

CREATE INDEX tokens_by_name ON tokens (namespace, name);
