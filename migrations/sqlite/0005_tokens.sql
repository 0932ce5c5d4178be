-- Credentials that the server made. The secret is not here: only its SHA-256. Rows stay when a token has ended, for the record.
CREATE TABLE tokens (
    id             TEXT    PRIMARY KEY,
    name           TEXT    NOT NULL,
    sha256         BLOB    NOT NULL,
    role           TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'agent')),
    -- Of an agent; empty otherwise.
    namespace      TEXT    NOT NULL,
    service        TEXT    NOT NULL,
    creator        TEXT    NOT NULL,
    created_us     INTEGER NOT NULL,
    expires_us     INTEGER NOT NULL,
    revoked_us     INTEGER,
    revoker        TEXT,
    revoke_reason  TEXT
) STRICT;

CREATE INDEX tokens_by_name ON tokens (name);
