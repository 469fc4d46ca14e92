-- One row per lock. It outlives its lease, so that the next token is higher; idle rows are swept after the retention.
CREATE TABLE IF NOT EXISTS {{locks}} (
    -- Compared byte by byte, whatever the database's own collation is.
    name         text COLLATE "C" PRIMARY KEY,
    -- 32 hex digits, fresh for each acquire call. NULL when nobody holds it.
    owner        text COLLATE "C",
    -- The fencing token of the last grant. Under 2^53 (until the year 2255), so that JSON carries it exactly.
    token        bigint NOT NULL CHECK (token BETWEEN 1 AND 9007199254740991),
    -- When the last grant was made.
    granted_at   timestamptz NOT NULL,
    -- Until when the owner may renew.
    expires_at   timestamptz NOT NULL,
    -- From when others may take it: the expiry plus the holder's grace, or later if it was released but kept taken.
    free_at      timestamptz NOT NULL,
    -- Until when a release is to be announced, because somebody waits; in the past or NULL if nobody does.
    wanted_until timestamptz,
    -- Who holds it, for people. It decides nothing.
    holder       jsonb,
    CHECK (octet_length(name) BETWEEN 1 AND 512)
)
-- Room on each page, and no index but the primary key: so an update stays on its page and touches no index (HOT).
WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.2);

-- The version of this schema, which clients check before they use it. It rises when those who know an older one must stay
-- away, and not for a column that they can do without: a fleet isn't upgraded at one stroke.
COMMENT ON TABLE {{locks}} IS 'leasehold locks, version 1';
