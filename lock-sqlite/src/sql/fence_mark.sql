-- Marks this transaction as the guarded one: the savepoint lives as long as it. Whatever ends the transaction, also what SQLite
-- does by itself when a statement fails, ends the savepoint, and no transaction that is begun after has it.
SAVEPOINT leasehold_guarded;
