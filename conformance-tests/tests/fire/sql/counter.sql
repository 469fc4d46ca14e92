-- One number. Many processes make it at once.
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL);
INSERT INTO counter (one, value) VALUES (1, 0) ON CONFLICT (one) DO NOTHING;
