-- Whether the table of locks has the column that came later.
SELECT EXISTS (SELECT 1 FROM pragma_table_info('leasehold_locks') WHERE name = 'last_tick');
