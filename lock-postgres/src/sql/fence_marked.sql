-- Fails unless this is the transaction that was guarded: its mark ends with it. No row.
-- {{mark}} of the grant
SELECT 0
WHERE CASE
    WHEN pg_catalog.strpos(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}') > 0 THEN false
    ELSE pg_catalog.textcat(
        'the transaction under a lock has ended before; ', pg_catalog.current_setting('transaction_isolation')
    )::integer = 0
END;
