-- Any name will do: it is an option of the client.
CREATE SCHEMA IF NOT EXISTS {{schema}};
