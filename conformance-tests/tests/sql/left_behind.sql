-- Databases that runs more than an hour ago made and, killed, did not drop; $1 is that hour ago, in seconds since 1970.
SELECT datname::text
FROM pg_database
WHERE datname ~ '^leasehold_conformance_[0-9]+_[0-9a-f]+$' AND split_part(datname, '_', 3)::bigint < $1;
