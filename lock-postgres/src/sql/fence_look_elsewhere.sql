-- Whether this grant holds the lock, asked outside of the transaction that it guards, which sees only what was there at its
-- first statement; and which server says so. No second row if the lock has none.
-- {{lock}} the name, as text; {{token}}
-- Who waits for the whole table waits for the guarded transaction too, and the server can't see that that one waits for this look.
SELECT pg_catalog.set_config('lock_timeout', '1000', true);
SELECT
    l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp() AS held,
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM {{locks}} AS l
WHERE l.name = {{lock}} COLLATE "C"
