#!/bin/sh
# Starts ZooKeeper on $PORT of the host's loopback, alone.
#
#   start.sh [NAME=VALUE]...
#
# Such a setting outweighs that of zoo.cfg.
set -eu

. /usr/local/lib/testbed/java.sh
home=/var/lib/testbed/alone
mkdir -p "$home"
{
    cat /usr/local/share/testbed/zoo.cfg
    echo "dataDir=$home"
    echo "clientPort=$PORT"
    echo 'clientPortAddress=127.0.0.1'
    for setting; do echo "$setting"; done
} > "$home/zoo.cfg"
server "$home/zoo.cfg"
