#!/bin/bash
# Starts three members of one cluster on the host's loopback: for clients on
# $PORT and the two ports after it, for one another on the three after those.
# Ends when it is told to, or when a member does.
set -eu

. /usr/local/lib/testbed/settings.sh
peers() { echo "http://127.0.0.1:$((PORT + 3 + $1))"; }
clients() { echo "http://127.0.0.1:$((PORT + $1))"; }
for member in 0 1 2; do
    etcd --name="$member" --data-dir="/var/lib/testbed/$member" \
        --listen-client-urls="$(clients $member)" --advertise-client-urls="$(clients $member)" \
        --listen-peer-urls="$(peers $member)" --initial-advertise-peer-urls="$(peers $member)" \
        --initial-cluster="0=$(peers 0),1=$(peers 1),2=$(peers 2)" "$@" &
done
trap 'kill $(jobs -p); wait; exit 0' TERM
wait -n || true
kill $(jobs -p) || true
wait
exit 1
