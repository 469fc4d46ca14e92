-- Makes the commit of this transaction fail: it has a reference to what isn't there, which SQLite looks for at the commit.
-- Gone with the transaction, whose writes are then undone. Nothing of it is in a file that others see.
CREATE TEMP TABLE IF NOT EXISTS leasehold_refused (
    id     INTEGER PRIMARY KEY,
    missed INTEGER NOT NULL REFERENCES leasehold_refused (id) DEFERRABLE INITIALLY DEFERRED
);

INSERT INTO temp.leasehold_refused (missed) VALUES (-1);
