#!/bin/sh
# Joins fresh nodes on these ports of the host's loopback into a cluster, each
# with an equal share of the slots, and waits until each sees the others.
#
#   join.sh PORT...
#
# The last line on stderr is one sentence that a person can act on.
set -eu

slots=16384
node=0
for port; do
    redis-cli -e -p "$port" cluster addslotsrange $((slots * node / $#)) $((slots * (node + 1) / $# - 1))
    # Different from the others', or each pair settles it with a delay.
    redis-cli -e -p "$port" cluster set-config-epoch $((node + 1))
    node=$((node + 1))
done
for port; do
    [ "$port" = "$1" ] || redis-cli -e -p "$1" cluster meet 127.0.0.1 "$port" $((port + 1))
done
for port; do
    tries=0
    until redis-cli -p "$port" cluster info | grep -q '^cluster_state:ok'; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then
            echo "the node on $port doesn't find the rest of its cluster" >&2
            exit 1
        fi
        sleep 0.1
    done
done
