-- Whether this grant holds the lock, asked outside of the transaction that it guards, which sees only what was there at its
-- first statement. No row if the lock has none.
-- {{lock}} the name, as text; {{token}}
SELECT l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp() AS held
FROM {{locks}} AS l
WHERE l.name = {{lock}} COLLATE "C"
