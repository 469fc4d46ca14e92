-- fence_guard.sql and fence_look_held.sql where nobody reads the answer: whatever isn't a yes fails, and the message with it.
-- {{lock}} the name, as text; {{place}} of its take-overs; {{token}}; {{mark}} of the grant
SELECT
    (CASE
        WHEN pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
            THEN 'the fence of a lock looks elsewhere'
        WHEN pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended({{lock}} COLLATE "C", {{guards}})) IS NULL THEN NULL
        WHEN pg_catalog.pg_try_advisory_lock({{takeovers}}, {{place}}) THEN
            CASE WHEN pg_catalog.pg_advisory_unlock({{takeovers}}, {{place}}) THEN '0' END
        ELSE 'the fence of a lock looks again'
    END)::integer,
    pg_catalog.set_config('leasehold.guard', '{{mark}}', true);
SELECT coalesce(
    (
        SELECT CASE
            WHEN l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp() THEN '0'
        END
        FROM {{locks}} AS l
        WHERE l.name = {{lock}} COLLATE "C"
        FOR KEY SHARE OF l
    ),
    -- It doesn't hold the lock, or the lock has no row.
    'refused by the fence of a lock: roll back'
)::integer;
