-- What kind of file this is, before anything in it is changed: its encoding, its journal mode, which of our
-- tables are there, and whether the one of locks has the column that came later.
SELECT
    (SELECT encoding FROM pragma_encoding),
    (SELECT journal_mode FROM pragma_journal_mode),
    EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'leasehold_schema'),
    EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'leasehold_locks'),
    EXISTS (SELECT 1 FROM pragma_table_info('leasehold_locks') WHERE name = 'last_tick');
