#!/bin/sh
# Starts etcd on $PORT of the host's loopback, alone.
#
#   start.sh [--SETTING=VALUE]...
set -eu

. /usr/local/lib/testbed/settings.sh
clients=http://127.0.0.1:$PORT
peers=http://127.0.0.1:$((PORT + 1))
# The last of a setting's values is the one that etcd takes.
exec etcd --name=alone --data-dir=/var/lib/testbed/alone \
    --listen-client-urls="$clients" --advertise-client-urls="$clients" \
    --listen-peer-urls="$peers" --initial-advertise-peer-urls="$peers" --initial-cluster="alone=$peers" "$@"
