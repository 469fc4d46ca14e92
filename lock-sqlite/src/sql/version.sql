-- The version of the schema in this file.
SELECT version FROM leasehold_schema WHERE only = 1;
