-- The two statements of fence_hold.sql where nobody reads the answer: whatever isn't a yes fails, and the message with it.
-- {{lock}} the name, as text; {{token}}
SELECT pg_advisory_xact_lock_shared(hashtextextended({{lock}} COLLATE "C", {{guards}}));
SELECT coalesce(
    (
        SELECT CASE
            -- One look isn't enough where it sees what was there before the wait: see fence_hold_in_snapshot.sql.
            WHEN left(current_setting('transaction_isolation'), 5) <> 'read '
                THEN textcat('the fence of a lock looks again: ', current_setting('transaction_isolation'))::integer
            WHEN l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > clock_timestamp()
                THEN 0
        END
        FROM {{locks}} AS l
        WHERE l.name = {{lock}} COLLATE "C"
        FOR KEY SHARE OF l
    ),
    -- It doesn't hold the lock, or the lock has no row.
    textcat('refused by the fence of a lock: roll back; ', current_setting('transaction_isolation'))::integer
);
