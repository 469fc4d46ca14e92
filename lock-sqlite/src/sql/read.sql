-- The records of the locks whose names are given as a JSON array.
-- CROSS JOIN fixes the order: one look-up in the primary key per name, never a scan of the table.
SELECT lock.name, lock.token, lock.owner, lock.boot_id, lock.until_ns, lock.holder, lock.last_tick
FROM json_each(?1) AS wanted
CROSS JOIN leasehold_locks AS lock ON lock.name = wanted.value;
