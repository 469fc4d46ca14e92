-- Writes records, given as a JSON array of objects. Only inside the BEGIN IMMEDIATE in which they were read and judged.
INSERT INTO leasehold_locks (name, token, owner, boot_id, until_ns, holder, ends_micros, last_tick)
SELECT
    value ->> 'name',
    value ->> 'token',
    value ->> 'owner',
    ?2,
    value ->> 'until_ns',
    value ->> 'holder',
    value ->> 'ends_micros',
    value ->> 'last_tick'
FROM json_each(?1)
WHERE true -- tells the parser that ON belongs to the upsert and not to a join
ON CONFLICT (name) DO UPDATE SET
    token = excluded.token,
    owner = excluded.owner,
    boot_id = excluded.boot_id,
    until_ns = excluded.until_ns,
    holder = excluded.holder,
    ends_micros = excluded.ends_micros,
    -- No judgement takes a tick back. None is given for a record that couldn't be understood and was forced: then what
    -- can be kept is.
    last_tick = coalesce(excluded.last_tick, iif(last_tick BETWEEN 0 AND 9007199254740991, last_tick, NULL));
