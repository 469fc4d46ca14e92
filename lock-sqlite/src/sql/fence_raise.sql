-- Raises what a resource has seen. Only in a transaction in which `fence_admit.sql` was read and judged.
INSERT INTO main.leasehold_fences (resource, lock, token)
VALUES (?1, ?2, ?3)
ON CONFLICT (resource) DO UPDATE SET
    lock = excluded.lock,
    token = excluded.token;
