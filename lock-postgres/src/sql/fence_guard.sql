-- Makes nobody else be granted this lock before the transaction ends. The look whether this grant still holds it is the next
-- statement of the same message: it must come after whatever was waited for here, and so needs a later snapshot.
-- Where there is no later snapshot, only fence_look_elsewhere.sql sees that the grant is over. So that comes before, too, and until
-- it has, nothing is done here: who is late, and asks again and again, would keep the next one out with each guard.
-- {{lock}} the name, as text; {{place}} of its take-overs; {{mark}} of the grant, which tells this transaction from a later one
-- {{looked}} whether it was looked elsewhere before
SELECT
    CASE
        WHEN first.looks_elsewhere THEN NULL
        -- Before all else, and never so.
        WHEN pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended({{lock}} COLLATE "C", {{guards}})) IS NULL THEN false
        -- Whether no take-over is being committed: acquire.sql looked for guards before there was this one, and its row can't be
        -- seen yet. Taken without waiting and let go at once: nothing can come between that leaves it with the session.
        WHEN pg_catalog.pg_try_advisory_lock({{takeovers}}, {{place}}) THEN pg_catalog.pg_advisory_unlock({{takeovers}}, {{place}})
        ELSE false
    END AS alone,
    -- Which server this is, to know whether it was asked elsewhere.
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS server,
    CASE WHEN NOT first.looks_elsewhere THEN
        pg_catalog.set_config(
            'leasehold.guard',
            pg_catalog.concat(pg_catalog.replace(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}', ''), '{{mark}}'),
            true
        )
    END
FROM (
    SELECT NOT {{looked}} AND pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable') AS looks_elsewhere
    OFFSET 0
) AS first;
