#!/bin/sh
# Makes a bucket, if it isn't there yet.
#
#   bucket.sh NAME
set -eu

ask() {
    echo "$1" | weed shell -master=127.0.0.1:9333
}

ask "s3.bucket.create -name $1" && exit 0
ask s3.bucket.list | grep -q "^ *$1[[:space:]]"
