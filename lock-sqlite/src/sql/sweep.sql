-- Deletes some idle records whose lease ended before ?1 (wall clock, microseconds).
-- Never one that is taken now (?2 boot, ?3 now): a wall clock that jumped ahead must not free a live lease.
-- Never one whose token lies ahead of the wall clock (?4): without its record the next token would be lower.
DELETE FROM leasehold_locks
WHERE name IN (
    SELECT name
    FROM leasehold_locks
    WHERE ends_micros < ?1 AND NOT (boot_id = ?2 AND until_ns > ?3) AND token < ?4
    ORDER BY ends_micros
    LIMIT 100
);
