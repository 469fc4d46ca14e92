-- Forgets what a resource has seen.
DELETE FROM main.leasehold_fences
WHERE resource = ?1;
