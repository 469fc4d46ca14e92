-- The look of fence_hold.sql, where all statements of a transaction see what was there at its first: fails with 40001 if the
-- row has changed since, which FOR KEY SHARE doesn't. A lock of this strength would hold renewals up, so it is undone at once.
-- {{lock}} the name in hex digits; {{token}}
SAVEPOINT leasehold_look;
WITH held AS MATERIALIZED (
    SELECT l.token
    FROM {{locks}} AS l
    WHERE l.name = convert_from(decode('{{lock}}', 'hex'), 'UTF8') COLLATE "C"
        AND l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > clock_timestamp()
    FOR SHARE OF l
)
SELECT CASE WHEN EXISTS (SELECT FROM held) THEN current_setting('transaction_isolation')
    ELSE ('refused by the fence of a lock: roll back; ' || current_setting('transaction_isolation'))::integer::text
END AS isolation;
ROLLBACK TO SAVEPOINT leasehold_look;
RELEASE SAVEPOINT leasehold_look
