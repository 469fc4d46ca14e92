-- The highest fence that a resource has seen, as of now.
SELECT lock, token
FROM main.leasehold_fences
WHERE resource = ?1;
