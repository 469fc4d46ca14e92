-- Which file a transaction writes, and whether it has the table ?1.
SELECT
    (SELECT file FROM pragma_database_list WHERE name = 'main'),
    EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1);
