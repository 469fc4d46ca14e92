-- One row per resource that is fenced: the highest token that it has seen, and of which lock.
CREATE TABLE IF NOT EXISTS {{fences}} (
    -- Compared byte by byte, whatever the database's own collation is.
    resource text COLLATE "C" PRIMARY KEY,
    -- Tokens of another lock can't be compared with these.
    lock     text COLLATE "C" NOT NULL,
    token    bigint NOT NULL CHECK (token > 0),
    CHECK (octet_length(resource) BETWEEN 1 AND 512)
)
-- Room on each page, and no index but the primary key: so a higher token stays on its page and touches no index (HOT).
WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.2);

-- Checked by clients before they use it.
COMMENT ON TABLE {{fences}} IS 'leasehold fences, version 1';
