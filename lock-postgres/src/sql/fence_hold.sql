-- Makes nobody else be granted this lock before the transaction ends, and then looks whether this grant still holds it. In one
-- message, and two statements: the look must come after whatever was waited for, and so needs a later snapshot.
-- {{lock}} the name in hex digits; {{token}}
SELECT pg_advisory_xact_lock_shared(hashtextextended(convert_from(decode('{{lock}}', 'hex'), 'UTF8') COLLATE "C", {{guards}}));
WITH held AS MATERIALIZED (
    SELECT l.token
    FROM {{locks}} AS l
    WHERE l.name = convert_from(decode('{{lock}}', 'hex'), 'UTF8') COLLATE "C"
        AND l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > clock_timestamp()
    -- Keeps the row from being deleted: nobody could say then who is guarded. Renewals and releases don't wait for it.
    FOR KEY SHARE OF l
)
-- If it holds nothing, this fails and the transaction with it: a process that stands still right then keeps nobody out.
SELECT CASE WHEN EXISTS (SELECT FROM held) THEN current_setting('transaction_isolation')
    ELSE ('refused by the fence of a lock: roll back; ' || current_setting('transaction_isolation'))::integer::text
END AS isolation
