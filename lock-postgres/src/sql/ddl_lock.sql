-- Everything that leasehold needs in a database. It can be run again at any time, and by many at once.
--
-- The lock of the next line ends with the transaction: CREATE ... IF NOT EXISTS alone races
-- (two sessions both find nothing there, and one of them fails on a unique index of the catalogue).
SELECT pg_advisory_xact_lock(7307182319120318565);
