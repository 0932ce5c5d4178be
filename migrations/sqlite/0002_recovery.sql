-- The highest revision that any replica was seen to run. Above `revision`, the data is an older copy of itself: a restored backup.
ALTER TABLE server ADD COLUMN seen_revision INTEGER NOT NULL DEFAULT 0;

-- Each time that an operator put a restored copy in force. Rows are only added.
CREATE TABLE recoveries (
    revision          INTEGER PRIMARY KEY,
    restored_revision INTEGER NOT NULL,
    seen_revision     INTEGER NOT NULL,
    author            TEXT    NOT NULL,
    reason            TEXT    NOT NULL,
    at_us             INTEGER NOT NULL
) STRICT;
