-- A lock's record as nobody can change it any more before this transaction ends.
-- The update changes no row and writes nothing, but it takes the file's write lock first; or fails, if somebody else has
-- written since this transaction first read.
-- `main.`: a temporary or attached table of this name decides nothing.
UPDATE main.leasehold_locks SET token = token WHERE false;

-- As `read.sql`, without what decides nothing here.
SELECT name, token, owner, boot_id, until_ns, NULL, NULL
FROM main.leasehold_locks
WHERE name = ?1;
