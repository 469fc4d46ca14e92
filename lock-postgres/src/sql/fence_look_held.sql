-- Looks whether this grant holds the lock. If it doesn't, this fails and the transaction with it: a process that stands still
-- right then keeps nobody out. No row if the lock has none.
-- {{lock}} the name, as text; {{token}}
SELECT (CASE
    WHEN l.token <> {{token}} OR l.owner IS NULL THEN 'refused by the fence of a lock: roll back'
    -- What is seen is what was there at the transaction's first statement. That the grant was, too, must be seen from here;
    -- what became of it since, fence_look_elsewhere.sql says.
    WHEN pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN '1'
    WHEN l.expires_at > pg_catalog.clock_timestamp() THEN '0'
    ELSE 'refused by the fence of a lock: roll back'
END)::integer AS snapshot
FROM {{locks}} AS l
WHERE l.name = {{lock}} COLLATE "C"
-- Keeps the row from being deleted: nobody could say then who is guarded. Renewals and releases don't wait for it.
FOR KEY SHARE OF l
