-- Fails unless this is the transaction that was guarded: its mark ends with it.
-- {{mark}} of the grant
SELECT (CASE
    WHEN coalesce(pg_catalog.strpos(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}'), 0) = 0
        THEN 'the transaction under a lock has ended before'
    ELSE '0'
END)::integer;
