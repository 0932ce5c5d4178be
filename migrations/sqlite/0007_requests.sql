-- Writes that came with an id of their client's, and what was answered: the same request again gets the same answer and writes nothing.
-- `sha256` is the digest of the request. Rows are removed a day after they were written.
CREATE TABLE requests (
    id      TEXT    PRIMARY KEY,
    sha256  BLOB    NOT NULL,
    answer  BLOB    NOT NULL,
    at_us   INTEGER NOT NULL
) STRICT;

CREATE INDEX requests_by_age ON requests (at_us);
