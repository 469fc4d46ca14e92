-- The tables of this crate in an SQLite file. They may stand beside an application's own.
-- Made inside one BEGIN IMMEDIATE, so that many processes may start at once.

CREATE TABLE IF NOT EXISTS leasehold_locks (
    -- TEXT under BINARY: compared byte by byte, as the file's encoding is UTF-8 (checked at opening).
    name        TEXT    NOT NULL PRIMARY KEY COLLATE BINARY CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512),
    -- The last grant's fencing token. It stays when the lock is free.
    token       INTEGER NOT NULL CHECK (token >= 0),
    -- 32 hex digits; NULL when nobody holds it, though it may still be taken (at-least-for).
    owner       TEXT    CHECK (length(owner) = 32),
    -- The boot of the host on whose clock `until_ns` counts. After another boot nothing of it counts.
    boot_id     TEXT    NOT NULL,
    -- Taken until this moment, in nanoseconds on CLOCK_BOOTTIME.
    until_ns    INTEGER NOT NULL CHECK (until_ns >= 0),
    -- Who holds it, as JSON, for people: it decides nothing.
    holder      TEXT    CHECK (length(holder) <= 8192),
    -- The lease's end on the wall clock, in microseconds since 1970: only for sweeping idle records.
    ends_micros INTEGER NOT NULL,
    -- The last scheduled time that was used up, in microseconds since 1970. It stays as the token does.
    last_tick   INTEGER CHECK (last_tick BETWEEN 0 AND 9007199254740991)
) STRICT, WITHOUT ROWID;

-- So that a sweep touches only what it deletes.
CREATE INDEX IF NOT EXISTS leasehold_locks_ends ON leasehold_locks (ends_micros);

-- The version of this schema: it rises when programs that know an older one must stay away, and not for a column that
-- they can do without (last_tick). PRAGMA user_version is left alone: it belongs to the application whose file this may be.
CREATE TABLE IF NOT EXISTS leasehold_schema (
    only    INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    version INTEGER NOT NULL
) STRICT;

INSERT OR IGNORE INTO leasehold_schema (only, version) VALUES (1, 1);
