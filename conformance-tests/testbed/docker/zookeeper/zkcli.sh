#!/bin/sh
# ZooKeeper's own client at the server of this container, or its first: runs the
# command that it is given, else those that it reads from stdin.
#
#   zkcli.sh SESSION_TIMEOUT_MS [COMMAND [ARGUMENT]...]
#
# What is wrong goes to stdout as well, in its order with the rest.
set -eu

. /usr/local/lib/testbed/java.sh
exec 2>&1
timeout=$1
shift
java_of off org.apache.zookeeper.ZooKeeperMain -server "127.0.0.1:${PORT:-2181}" -timeout "$timeout" "$@"
