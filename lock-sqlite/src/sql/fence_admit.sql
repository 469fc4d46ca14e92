-- The highest fence that a resource has seen, as nobody can change it any more before this transaction ends.
-- The update takes the file's write lock.
UPDATE main.leasehold_fences SET token = token WHERE false;

SELECT lock, token
FROM main.leasehold_fences
WHERE resource = ?1;
