-- A page of records in byte order: names from ?1 on (the prefix) and below ?2 (the first text past all that begin so;
-- none if NULL: every text sorts below a blob), after ?3, at most ?4. No LIKE: a prefix is untrusted and has no wildcards.
SELECT name, token, owner, boot_id, until_ns, holder, last_tick
FROM leasehold_locks
WHERE name >= ?1 AND name < coalesce(?2, x'') AND name > ?3
ORDER BY name
LIMIT ?4;
