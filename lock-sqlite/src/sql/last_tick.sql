-- Adds what files made before there were ticks lack. Only inside a BEGIN IMMEDIATE that found it missing.
-- Programs that were built before go on using the file: they name their columns, and leave this one as it is.
ALTER TABLE leasehold_locks
    ADD COLUMN last_tick INTEGER CHECK (last_tick BETWEEN 0 AND 9007199254740991);
