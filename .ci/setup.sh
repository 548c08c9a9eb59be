# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What docs/quickstart and tests/run share. Sourced by bash; MOAT_SOURCE is the project's folder.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

require_root() {
    [ "$(id -u)" = 0 ] || die "needs root: it makes network namespaces, and installs packages that are missing"
}

# In a plain chroot "/" is not a mount point, and then nobody can have a mount namespace of his own:
# neither `ip netns exec` nor unshare(1) nor `moat run`; and who enters one leaves the chroot. Start
# this script again in a mount namespace whose root is the chroot's. Nothing of it reaches the
# outside. Needs python3.
require_root_mount() {
    local mount_point
    while read -r _ _ _ _ mount_point _; do
        [ "$mount_point" = / ] && return 0
    done </proc/self/mountinfo
    [ -z "${MOAT_ROOT_MOUNTED:-}" ] || die "can't make / a mount point"
    export MOAT_ROOT_MOUNTED=1
    exec /usr/bin/python3 - "$(realpath "$0")" "$@" <<'PYTHON'
import ctypes, os, sys

CLONE_NEWNS, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x2000, 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        sys.exit(f"this chroot can't be made a mount: {name}: {os.strerror(ctypes.get_errno())}")

def mount(source, target, flags):
    call("mount", source, target, None, ctypes.c_ulong(flags), None)

terminal = os.open("/dev/tty", os.O_RDONLY) if os.isatty(1) else os.open("/dev/null", os.O_RDONLY)
call("unshare", CLONE_NEWNS)
tree = os.open("/", os.O_PATH)
call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), CLONE_NEWNS)  # its root is the root now
os.fchdir(tree)
path = os.getcwd().encode()
mount(None, b"/", MS_REC | MS_PRIVATE)
mount(path, path, MS_BIND | MS_REC)
os.chdir(path)
mount(b".", b"/", MS_MOVE)
os.chroot(".")
os.chdir("/")
os.dup2(terminal, 0)
os.execv("/bin/bash", ["bash"] + sys.argv[1:])
PYTHON
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
