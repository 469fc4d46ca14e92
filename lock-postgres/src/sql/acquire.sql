-- Hands out locks that can be had; says of the others who has them. One row for each name as it was found, and another
-- (touched) if it was changed: it is the asker's if its owner is the asker, and else its tick was used up if it isn't
-- after the last one.
-- $1 names, all different; $2 owners; $3 ttls and $4 waiting times in microseconds (0: doesn't wait); $5 holders as JSON
-- $6 the grace in microseconds; $7 ticks by name, as one JSON object of those that ask for one, or NULL if none does
-- $8 the ticks that their grants use up, NULL where they don't
--
-- Times are clock_timestamp(), never now(): this statement may have waited for a row, and the start of its
-- transaction lies before the wait.
WITH durable AS MATERIALIZED (
    -- A grant that a crash can undo is none. Only raised: the administrator may have chosen remote_apply.
    SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
        THEN set_config('synchronous_commit', 'on', true)
        ELSE current_setting('synchronous_commit')
    END AS level
),
ticks AS MATERIALIZED (
    -- Where a row conflicts nothing is seen of what was asked but columns: there a tick is looked up. Read once.
    SELECT $7::text::jsonb AS by_name
),
asked AS MATERIALIZED (
    SELECT
        a.name COLLATE "C" AS name,
        a.owner,
        a.ttl * interval '1 microsecond' AS ttl,
        a.wait * interval '1 microsecond' AS wait,
        a.holder::jsonb AS holder,
        ((SELECT by_name FROM ticks) ->> a.name)::bigint AS tick,
        a.uses
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $8::bigint[])
        AS a (name, owner, ttl, wait, holder, uses)
    CROSS JOIN durable
    WHERE durable.level IS NOT NULL  -- The planner drops what nobody reads.
),
-- Ordered, so that all groups lock their rows in one order and none deadlocks with another.
seen AS MATERIALIZED (
    SELECT
        asked.*,
        hashtextextended(asked.name, {{guards}}) AS guard,
        l.name IS NULL OR l.free_at <= clock_timestamp() AS free,
        l.owner = asked.owner AND l.expires_at > clock_timestamp() AS mine,
        coalesce(l.last_tick >= asked.tick, false) AS used_up,
        -- A mark that lasts for as long is not made again. Without a row there is nothing to mark: what is written is a grant.
        asked.wait > interval '0' AND l.name IS NOT NULL
            AND (l.wanted_until IS NULL OR l.wanted_until < clock_timestamp() + asked.wait) AS mark,
        l.free_at,
        l.last_tick,
        CASE WHEN l.owner IS NOT NULL AND l.expires_at > clock_timestamp() THEN l.holder END AS held_by
    FROM asked
    LEFT JOIN {{locks}} AS l ON l.name = asked.name
    ORDER BY asked.name
),
-- A free lock isn't granted while a transaction is open that was begun under an earlier grant: it holds the lock's guard,
-- which is shared (fence_guard.sql). So we ask for it alone, without waiting, and let go at once. That is enough: a transaction
-- that comes after this look finds the grant over, as we did, or the next one made. Kept until the commit, a group of a
-- thousand would fill the table of locks that the whole server shares.
known AS MATERIALIZED (
    SELECT
        seen.*,
        CASE WHEN free AND NOT used_up THEN
            CASE WHEN pg_try_advisory_lock(guard) THEN NOT pg_advisory_unlock(guard) ELSE true END
        ELSE false END AS guarded
    FROM seen
    ORDER BY name
),
taken AS (
    INSERT INTO {{locks}} AS l (name, owner, token, granted_at, expires_at, free_at, wanted_until, holder, last_tick)
    SELECT
        name, owner, floor(extract(epoch FROM at) * 1000000)::bigint,
        -- Two differences carry the ttl and the waiting time of each name into the part below, which sees
        -- nothing but columns: expires_at - granted_at, and granted_at - wanted_until (in the past: nobody waits).
        at, at + ttl, at + ttl + $6::bigint * interval '1 microsecond', at - wait, holder, uses
    FROM (
        -- Who is refused by what was there when the statement began writes nothing, not even a lock on the row. A tick
        -- that was used up stays so, and is told of whoever doesn't ask again for what is his.
        SELECT *, clock_timestamp() AS at FROM known
        WHERE mine OR (((free AND NOT guarded) OR mark) AND NOT used_up)
        OFFSET 0
    ) AS wanted
    ON CONFLICT (name) DO UPDATE SET (
        owner, token, granted_at, expires_at, free_at, wanted_until, holder, last_tick
    ) = (
        -- Evaluated once the row is locked, by one look at the clock.
        SELECT
            CASE WHEN free THEN excluded.owner ELSE l.owner END,
            CASE WHEN free THEN greatest(l.token + 1, floor(extract(epoch FROM at) * 1000000)::bigint) ELSE l.token END,
            CASE WHEN free THEN at ELSE l.granted_at END,
            CASE WHEN free THEN at + ttl WHEN mine THEN greatest(l.expires_at, at + ttl) ELSE l.expires_at END,
            CASE WHEN free THEN at + ttl + grace WHEN mine THEN greatest(l.free_at, at + ttl + grace) ELSE l.free_at END,
            -- For twice as long as it is asked for: who comes back meanwhile writes nothing.
            CASE WHEN free OR mine OR used_up OR wait <= interval '0' OR l.wanted_until >= at + wait THEN l.wanted_until
                ELSE at + 2 * wait END,
            CASE WHEN free THEN excluded.holder ELSE l.holder END,
            CASE WHEN free THEN greatest(l.last_tick, excluded.last_tick) ELSE l.last_tick END
        FROM (
            SELECT
                at,
                used_up,
                CASE WHEN l.free_at <= at AND NOT used_up THEN
                    -- A lock that was given back is seen to be. A lease that is over by the clock alone seems to go on, to
                    -- who comes before this is committed and after the clock has stepped back: so guards wait for who
                    -- takes it over (fence_guard.sql). Until the commit, but in one of 32 places, however large the group.
                    CASE
                        WHEN l.owner IS NOT NULL AND NOT pg_try_advisory_xact_lock_shared({{takeovers}}, place) THEN false
                        WHEN pg_try_advisory_lock(guard) THEN pg_advisory_unlock(guard)
                        ELSE false
                    END
                ELSE false END AS free,
                l.owner = excluded.owner AND l.expires_at > at AS mine,
                excluded.expires_at - excluded.granted_at AS ttl,
                excluded.free_at - excluded.expires_at AS grace,
                excluded.granted_at - excluded.wanted_until AS wait
            FROM (
                SELECT
                    clock_timestamp() AS at,
                    hashtextextended(l.name, {{guards}}) AS guard,
                    (octet_length(l.name) + ascii(right(l.name, 1))) & 31 AS place,
                    coalesce(l.last_tick >= ((SELECT by_name FROM ticks) ->> l.name)::bigint, false) AS used_up
                OFFSET 0
            ) AS look
            OFFSET 0
        ) AS seen
    )
    WHERE l.free_at <= clock_timestamp()
        OR (l.owner = excluded.owner AND l.expires_at > clock_timestamp())
        OR excluded.wanted_until < excluded.granted_at
        -- Used up since the statement began: the row changes in nothing, but is told as it is now.
        OR l.last_tick >= ((SELECT by_name FROM ticks) ->> l.name)::bigint
    RETURNING l.name, l.owner, l.token, l.expires_at, l.free_at, l.holder, l.last_tick
)
SELECT
    true AS touched,
    taken.name::text AS name,
    CASE WHEN taken.expires_at > clock_timestamp() THEN taken.owner END::text AS owner,
    taken.token,
    CASE WHEN taken.owner IS NOT NULL AND taken.expires_at > clock_timestamp() THEN taken.holder END::text AS holder,
    -- Free, and yet not granted: guarded. Nobody tells of its end, so it is asked for again soon.
    CASE WHEN taken.free_at > clock_timestamp()
        THEN floor(extract(epoch FROM taken.free_at - clock_timestamp()) * 1000000)::bigint
        ELSE 100000
    END AS remaining,
    taken.last_tick
FROM taken
UNION ALL
-- As it was when the statement began; counts where nothing was touched. A hint, and NULL if it is worth nothing.
SELECT
    false,
    known.name::text,
    NULL,
    NULL,
    known.held_by::text,
    CASE
        WHEN known.guarded THEN 100000
        WHEN known.free_at > clock_timestamp()
            THEN floor(extract(epoch FROM known.free_at - clock_timestamp()) * 1000000)::bigint
    END,
    known.last_tick
FROM known
