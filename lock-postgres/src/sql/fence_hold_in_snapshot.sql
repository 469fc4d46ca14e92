-- The look of fence_hold.sql, where all statements of a transaction see what was there at its first: fails with 40001 if the
-- row has changed since, which FOR KEY SHARE doesn't. A lock of this strength would hold renewals up, so it is undone at once.
-- {{lock}} the name, as text; {{token}}
SAVEPOINT leasehold_look;
SELECT CASE
    WHEN l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp()
        THEN pg_catalog.current_setting('transaction_isolation')
    ELSE ('refused by the fence of a lock: roll back; ' || pg_catalog.current_setting('transaction_isolation'))::integer::text
END AS isolation
FROM {{locks}} AS l
WHERE l.name = {{lock}} COLLATE "C"
FOR SHARE OF l;
ROLLBACK TO SAVEPOINT leasehold_look;
RELEASE SAVEPOINT leasehold_look
