-- The two statements of fence_hold.sql where nobody reads the answer: whatever isn't a yes fails, and the message with it.
-- {{lock}} the name, as text; {{token}}; {{mark}} of the grant, which tells this transaction from a later one of the session
SELECT
    pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended({{lock}} COLLATE "C", {{guards}})),
    pg_catalog.set_config(
        'leasehold.guard',
        pg_catalog.concat(pg_catalog.replace(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}', ''), '{{mark}}'),
        true
    );
SELECT coalesce(
    (
        SELECT CASE
            -- One look isn't enough where it sees what was there before the wait: see fence_hold_in_snapshot.sql.
            WHEN left(pg_catalog.current_setting('transaction_isolation'), 5) <> 'read '
                THEN pg_catalog.textcat('the fence of a lock looks again: ', pg_catalog.current_setting('transaction_isolation'))::integer
            WHEN l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp()
                THEN 0
        END
        FROM {{locks}} AS l
        WHERE l.name = {{lock}} COLLATE "C"
        FOR KEY SHARE OF l
    ),
    -- It doesn't hold the lock, or the lock has no row.
    pg_catalog.textcat('refused by the fence of a lock: roll back; ', pg_catalog.current_setting('transaction_isolation'))::integer
);
