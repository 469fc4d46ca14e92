-- Commits a guarded transaction if its grant still holds the lock. Nobody else was granted it since the transaction was guarded,
-- which the mark shows: so nothing is locked here. Where that must be asked elsewhere, nothing has happened after a roll-back
-- to the savepoint.
-- {{lock}} the name, as text; {{token}}; {{mark}} of the grant
SAVEPOINT leasehold_look;
SELECT (CASE
    WHEN coalesce(pg_catalog.strpos(pg_catalog.current_setting('leasehold.guard', true), '{{mark}}'), 0) = 0
        THEN 'the transaction under a lock has ended before'
    WHEN pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
        THEN 'the fence of a lock looks elsewhere'
    ELSE coalesce(
        (
            SELECT CASE WHEN l.token = {{token}} AND l.owner IS NOT NULL AND l.expires_at > pg_catalog.clock_timestamp() THEN '0' END
            FROM {{locks}} AS l
            WHERE l.name = {{lock}} COLLATE "C"
        ),
        'refused by the fence of a lock: roll back'
    )
END)::integer;
RELEASE SAVEPOINT leasehold_look;
-- The next transaction, which is empty, is for the driver: it rolls one back when it is told nothing of a commit.
COMMIT AND CHAIN
