#!/bin/sh
# Stands in for protoc in this workspace (see .cargo/config.toml), so that a machine without it is told what to install:
# the build script of etcd's driver, which runs before ours, names one package of the two.
needed='Building lock-etcd needs the protobuf compiler and its own protocol files: on Debian and Ubuntu '\
'the packages protobuf-compiler and libprotobuf-dev (cargo xtask packages installs them), elsewhere mostly one called '\
'protobuf. leasehold without its feature etcd needs none of it.'
if ! command -v protoc >/dev/null; then
    printf '%s\n' "$needed" >&2
    exit 1
fi
protoc "$@" && exit
code=$?
printf '%s\n' "$needed" >&2
exit "$code"
