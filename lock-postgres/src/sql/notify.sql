-- Wakes those who wait for these locks. A statement of its own after the release has committed: NOTIFY holds a
-- database-wide lock until its transaction has ended, and a release isn't to queue for that.
-- $1 the channel; $2 names
WITH volatile_commit AS MATERIALIZED (
    -- There is nothing to keep, so that lock needn't be held until the disk has answered.
    SELECT set_config('synchronous_commit', 'off', true) AS level
)
SELECT count(pg_notify($1::text, a.name))
FROM unnest($2::text[]) AS a (name)
CROSS JOIN volatile_commit
WHERE volatile_commit.level IS NOT NULL
