#!/bin/sh
# Starts SeaweedFS, of which only the S3 gateway is for others than itself.
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are whom the gateway knows.
set -eu

# A part of a key between two slashes may be as long as a key may be at all, as on
# S3 itself; otherwise the filer takes no more than 255 bytes.
export WEED_FILER_OPTIONS_MAX_FILE_NAME_LENGTH=1024

# Few and small volumes: there are few objects, and each volume is a file that is
# kept open. Nothing is told to its makers.
exec weed -logtostderr=true server -dir=/var/lib/testbed \
    -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3.ip.bind=0.0.0.0 \
    -s3 -s3.port=8333 -s3.port.iceberg=0 -s3.port.lance=0 \
    -master.telemetry=false -master.volumeSizeLimitMB=64 -volume.max=8 -volume.preStopSeconds=0
