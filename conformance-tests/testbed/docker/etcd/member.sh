#!/bin/sh
# Starts one member of a cluster, each of which has an address of its own.
#
#   member.sh MEMBER ADDRESS...
#
# MEMBER is counted from 0; the addresses are those of all members, in order.
set -eu

name=$1
shift
number=0
cluster=
for address; do
    [ "$number" != "$name" ] || own=$address
    cluster=$cluster,$number=http://$address:2380
    number=$((number + 1))
done
set --
. /usr/local/lib/testbed/settings.sh
# On its loopback too, for etcdctl in the container, cut off or not.
exec etcd --name="$name" --data-dir=/var/lib/testbed/member \
    --listen-client-urls="http://$own:2379,http://127.0.0.1:2379" --advertise-client-urls="http://$own:2379" \
    --listen-peer-urls="http://$own:2380" --initial-advertise-peer-urls="http://$own:2380" \
    --initial-cluster="${cluster#,}" "$@"
