#!/bin/sh
# etcdctl at the server of this container, or its first; as root, where that asks
# for a user.
#
#   ctl.sh COMMAND [ARGUMENT]...
set -eu

if [ -n "${AUTH:-}" ]; then
    set -- --user="root:$ETCD_PASSWORD" "$@"
fi
exec etcdctl --endpoints="http://127.0.0.1:${PORT:-2379}" "$@"
