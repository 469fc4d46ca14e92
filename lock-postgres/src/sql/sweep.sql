-- Deletes rows of locks that nobody has held for the retention; tokens rise all the same, by the clock.
-- Never waits for a row. Reads the whole table, which is why it is rare: an index on free_at would cost each
-- grant and renewal more than this.
-- $1 the retention in microseconds
WITH idle AS MATERIALIZED (
    SELECT l.name
    FROM {{locks}} AS l
    WHERE l.free_at < clock_timestamp() - $1::bigint * interval '1 microsecond'
        AND (l.wanted_until IS NULL OR l.wanted_until < clock_timestamp())
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
)
DELETE FROM {{locks}} AS l USING idle WHERE l.name = idle.name
