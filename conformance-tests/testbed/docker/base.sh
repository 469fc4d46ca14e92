#!/bin/sh
# Makes the base image of the testbed with debootstrap, for machines that
# reach a Debian mirror but no image registry.
#
#   base.sh TAG
#
# Needs root, or sudo that asks for no password. LEASEHOLD_TEST_DEBIAN_MIRROR
# names another mirror than deb.debian.org.
#
# The last line on stderr is one sentence that a person can act on.
set -eu

tag=$1
suite=bookworm
mirror=${LEASEHOLD_TEST_DEBIAN_MIRROR:-http://deb.debian.org/debian}

# debootstrap lives in /usr/sbin, which an ordinary user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    # env, because sudo drops the variables that name a proxy or a front end.
    as_root="sudo -n env http_proxy=${http_proxy:-} DEBIAN_FRONTEND=noninteractive"
else
    echo "making the base image needs root: run 'sudo $0 $tag' once, or 'docker pull debian:$suite-slim'" >&2
    exit 1
fi

if ! command -v debootstrap >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "debootstrap is missing: install it, or run 'docker pull debian:$suite-slim' where a registry is in reach" >&2
        exit 1
    fi
    # The keyring is a package of its own on Ubuntu; without it the download
    # would not be verified.
    export DEBIAN_FRONTEND=noninteractive
    $as_root apt-get update >&2
    $as_root apt-get install -y --no-install-recommends debootstrap debian-archive-keyring >&2
fi

# Not /tmp: it is often mounted nodev or noexec, which debootstrap refuses.
root=$(mktemp -d /var/tmp/leasehold-testbed-base.XXXXXX)
trap '$as_root rm -rf --one-file-system "$root" "$root.tar"' EXIT
trap 'exit 130' INT TERM

$as_root debootstrap --variant=minbase "$suite" "$root" "$mirror" >&2

# Package lists and downloaded packages go stale and are most of the size.
$as_root sh -c "rm -rf '$root'/var/lib/apt/lists/* '$root'/var/cache/apt/archives/*.deb"

# A daemon must not start while its package is installed in a build.
printf '#!/bin/sh\nexit 101\n' | $as_root tee "$root/usr/sbin/policy-rc.d" >/dev/null
$as_root chmod 755 "$root/usr/sbin/policy-rc.d"

# 'docker import' of a half-written archive would leave a broken image, and a
# pipe hides that tar failed: so through a file.
$as_root tar -C "$root" --one-file-system -cf "$root.tar" .
docker import --change 'CMD ["bash"]' "$root.tar" "$tag" >&2 || {
    echo "docker import of the base image failed" >&2
    exit 1
}
