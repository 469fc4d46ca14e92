-- In the order of their commits: one writes at a time.
CREATE TABLE IF NOT EXISTS fire_transacted (n INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL);
