-- Makes nobody else be granted this lock before the transaction ends, and then looks whether this grant still holds it. In one
-- message, and two statements: the look must come after whatever was waited for, and so needs a later snapshot.
-- {{lock}} the name, as text; {{token}}; {{mark}} of the grant, which tells this transaction from a later one of the session
SELECT
    pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended({{lock}} COLLATE "C", {{guards}})),
    pg_catalog.set_config(
        'leasehold.guard',
        pg_catalog.concat(pg_catalog.replace(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}', ''), '{{mark}}'),
        true
    );
-- If it holds the lock no more, this fails and the transaction with it: a process that stands still right then keeps nobody out.
-- No row if the lock has none.
SELECT CASE
    WHEN l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp()
        THEN pg_catalog.current_setting('transaction_isolation')
    ELSE ('refused by the fence of a lock: roll back; ' || pg_catalog.current_setting('transaction_isolation'))::integer::text
END AS isolation
FROM {{locks}} AS l
WHERE l.name = {{lock}} COLLATE "C"
-- Keeps the row from being deleted: nobody could say then who is guarded. Renewals and releases don't wait for it.
FOR KEY SHARE OF l
