#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What `moat run -- COMMAND` does, as a shell script: a namespace on a bridge that is there already,
# its address and rules, name service settings, the command in fresh mount and process namespaces,
# and everything taken back.
#   shell_run.sh NAME BRIDGE ADDRESS GATEWAY COMMAND [ARG...]
set -e
name=$1 bridge=$2 address=$3 gateway=$4
shift 4

directory=$(mktemp -d)
ip netns add "$name"
ip link add "$name" mtu 1500 master "$bridge" up type veth peer name eth0 mtu 1500 netns "$name"
ip -n "$name" link set lo up
ip -n "$name" address add "$address/16" dev eth0
ip -n "$name" link set eth0 up
ip -n "$name" route add default via "$gateway"
nft add element inet floor guest "{ 7 . $address }"
echo "nameserver $gateway" >"$directory/resolv.conf"
echo "$address $name" >"$directory/hosts"

status=0
# shellcheck disable=SC2016 # the inner shell expands them
nsenter --net="/run/netns/$name" unshare --mount --pid --fork --mount-proc sh -c '
	mount --bind "$0/resolv.conf" /etc/resolv.conf
	mount --bind "$0/hosts" /etc/hosts
	exec "$@"' "$directory" "$@" || status=$?

nft delete element inet floor guest "{ 7 . $address }"
ip link delete "$name"
ip netns delete "$name"
rm -r "$directory"
exit "$status"
