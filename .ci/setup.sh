# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What docs/quickstart and tests/run share. Sourced by bash; MOAT_SOURCE is the project's folder.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

require_root() {
    [ "$(id -u)" = 0 ] || die "needs root: it makes network namespaces, and installs packages that are missing"
}

# In a plain chroot "/" is not a mount point, and then nobody can make a mount namespace of his own
# with private mounts: neither `ip netns exec`, nor unshare(1), nor `moat run`. Start this script
# again in a mount namespace where the same files are a mount; nothing of it reaches the outside.
require_root_mount() {
    while read -r _ _ _ _ mount_point _; do
        [ "$mount_point" = / ] && return 0
    done </proc/self/mountinfo
    [ -z "${MOAT_ROOT_MOUNTED:-}" ] || die "can't make / a mount point"
    export MOAT_ROOT_MOUNTED=1
    # /proc is a mount of its own; below it, once private, a mount stays where it is made.
    exec unshare --mount --propagation unchanged /bin/bash -c '
        set -e
        mount --make-private /proc
        mount -t tmpfs tmpfs /proc/fs
        mkdir /proc/fs/root
        mount --rbind / /proc/fs/root
        mount --make-rprivate /proc/fs/root
        cd /proc/fs/root
        exec chroot . /bin/bash "$@"' bash "$(realpath "$0")" "$@"
}

# install_packages GROUP...: the packages of these groups that are missing.
install_packages() {
    local group package missing=()
    while read -r group package; do
        case " $* " in
        *" $group "*) ;;
        *) continue ;;
        esac
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done < <(sed '/^#/d; /^$/d' "$MOAT_SOURCE/.ci/packages")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "apt-get install ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
}

# build PRESET [CMAKE-OPTION...]: configures and builds it in $MOAT_BUILDS/PRESET.
build() {
    local preset=$1
    shift
    cmake -S "$MOAT_SOURCE" --preset "$preset" -B "$MOAT_BUILDS/$preset" "$@" >"$MOAT_BUILDS/$preset.log" 2>&1 || {
        cat "$MOAT_BUILDS/$preset.log"
        die "configuring $preset failed"
    }
    cmake --build "$MOAT_BUILDS/$preset"
}
