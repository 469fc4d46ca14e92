#!/bin/sh
# Turns on authentication at the server on $PORT, unless it is on:
#
#   root          may do anything
#   $ETCD_USER    may read and write the keys that begin with $ETCD_USER/
#   nobody        may do nothing
#
# All have the same password. May run again, also where it was ended half-way.
set -eu

ctl() { etcdctl --endpoints="http://127.0.0.1:$PORT" "$@"; }

# Without authentication anybody may ask for the users.
if ! users=$(ctl user list 2>&1); then
    ctl --user="root:$ETCD_PASSWORD" user list > /dev/null
    exit 0
fi
roles=$(ctl role list)
has() { echo "$1" | grep -qx "$2"; }

for user in root "$ETCD_USER" nobody; do
    has "$users" "$user" || ctl user add "$user:$ETCD_PASSWORD" > /dev/null
done
for role in root "$ETCD_USER"; do
    has "$roles" "$role" || ctl role add "$role" > /dev/null
done
ctl role grant-permission "$ETCD_USER" --prefix=true readwrite "$ETCD_USER/" > /dev/null
ctl user grant-role root root > /dev/null
ctl user grant-role "$ETCD_USER" "$ETCD_USER" > /dev/null
ctl auth enable > /dev/null
