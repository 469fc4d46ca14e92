-- The register of fences, in the file that has the data.
CREATE TABLE IF NOT EXISTS main.leasehold_fences (
    -- What is fenced. Compared byte by byte.
    resource TEXT    NOT NULL PRIMARY KEY COLLATE BINARY CHECK (resource <> ''),
    -- The lock that fences it: tokens of another one can't be compared.
    lock     TEXT    NOT NULL CHECK (lock <> ''),
    -- The highest token that was seen.
    token    INTEGER NOT NULL CHECK (token > 0)
) STRICT, WITHOUT ROWID;
