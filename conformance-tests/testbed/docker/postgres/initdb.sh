#!/bin/sh
# Makes the data directory: one superuser with a password, one database with
# pg_stat_statements. Runs once, in the build of the image.
set -eu

echo "$POSTGRES_PASSWORD" > /tmp/password
initdb --username="$POSTGRES_USER" --pwfile=/tmp/password \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
rm /tmp/password

# initdb lets in the loopback only; clients come from outside the container.
echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"

# What a bare 'docker run' needs too. The testbed repeats it on the command
# line, where it also reaches images that are not ours.
cat >> "$PGDATA/postgresql.conf" <<'CONF'
listen_addresses = '*'
max_connections = 200
shared_preload_libraries = 'pg_stat_statements'
CONF

pg_ctl start --wait --options="-c listen_addresses=''"
[ "$POSTGRES_DB" = postgres ] || createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
psql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --set=ON_ERROR_STOP=1 \
    --command='create extension if not exists pg_stat_statements'
pg_ctl stop --wait --mode=fast
