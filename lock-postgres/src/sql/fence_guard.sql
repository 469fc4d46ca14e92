-- Makes nobody else be granted this lock before the transaction ends. The look whether this grant still holds it is the next
-- statement of the same message: it must come after whatever was waited for here, and so needs a later snapshot.
-- {{lock}} the name, as text; {{place}} of its take-overs; {{mark}} of the grant, which tells this transaction from a later one
SELECT
    CASE
        -- First of all, and never so.
        WHEN pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended({{lock}} COLLATE "C", {{guards}})) IS NULL THEN false
        -- Whether no take-over is being committed: acquire.sql looked for guards before there was this one, and its row can't be
        -- seen yet. Taken without waiting and let go at once: nothing can come between that leaves it with the session.
        WHEN pg_catalog.pg_try_advisory_lock({{takeovers}}, {{place}}) THEN pg_catalog.pg_advisory_unlock({{takeovers}}, {{place}})
        ELSE false
    END AS alone,
    pg_catalog.set_config(
        'leasehold.guard',
        pg_catalog.concat(pg_catalog.replace(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}', ''), '{{mark}}'),
        true
    );
