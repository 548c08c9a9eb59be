# SPDX-License-Identifier: GPL-2.0-or-later
"""A name worker that obeys somebody else: what it tells moatd opens nothing that no rule names."""

import ctypes
import os
import re
import socket
import struct

import pytest

import topology
from test_domain_rules import FAR, NAME, far, guest  # fixtures  # noqa: F401
from test_policy import attempt, refused
from wait import stays, wait_for

PIDFD_GETFD = 438
MESSAGE_GIVE = 30  # DNS_MESSAGE_GIVE, src/worker/dns_message.h


def confined(pid):
    """Whether its seccomp filter is there."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return "\nSeccomp:\t2\n" in file.read()


def channel_of(pid):
    """The worker's end of its channel to moatd: its only SOCK_SEQPACKET socket that does not listen. Before it is
    confined it may still have others, of the moatd that it was forked from."""
    wait_for(lambda: confined(pid), 5, "the worker to be confined")
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for number in map(int, os.listdir(f"/proc/{pid}/fd")):
            fd = libc.syscall(PIDFD_GETFD, pidfd, number, 0)
            if fd < 0:
                continue
            try:
                found = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                continue
            if ((found.family, found.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    and not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
                return found
            found.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {pid} has no channel")


class Hijacker:
    def __init__(self, host):
        self.host = host
        self.channel = channel_of(host.call("system.status")["dns_pid"])

    def give(self, guest, name, *addresses):
        """Speaks as the worker does before it gives a guest an answer (struct dns_give_message)."""
        number, version = self.policy_of(guest)
        payload = struct.pack("=QqQHB254sxxx", 4711, number, version, len(addresses), 1, name.encode())
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            payload += struct.pack("=B16sxxxI", family, socket.inet_pton(family, address), 3600)
        payload += bytes(4)  # sizeof is rounded up
        self.channel.send(struct.pack("=HHI", MESSAGE_GIVE, 0, len(payload)) + payload)

    def policy_of(self, guest):
        """(id, version), as its port's element in the table says."""
        port = guest.endpoint()["host_interface"]
        listing = self.host.run("nft", "list", "map", "inet", "moat", "policy_public")
        found = re.search(rf'"{port}" : goto guest(\d+)_([0-9a-f]+)_public', listing)
        return (int(found[1]), int(found[2], 16)) if found else (1, 0)


@pytest.fixture
def hijacker(host):
    hijacker = Hijacker(host)
    yield hijacker
    hijacker.channel.close()


def test_it_opens_only_what_rules_name(host, guest, far, hijacker):  # noqa: F811
    for name in ("www.example.net", "example.org", "xwww.example.org", "org", "*.example.org", "."):
        hijacker.give(guest, name, far)
    stays(lambda: attempt(guest, "tcp", far, 7) == "ECONNREFUSED", 0.5)
    hijacker.give(guest, NAME, far)
    wait_for(lambda: attempt(guest, "tcp", far, 7) == "open", 3, "the control: what a rule names can be opened so")
    assert refused(guest, "tcp", topology.INTERNET, 7) is True


def test_it_never_opens_the_host_or_a_guest(host, lan, far, hijacker, internet):  # noqa: F811
    host.moat("net", "create", "open", "--host-access", "--ipv6")
    peer = host.attach_guest("peer", network="open")
    guest = host.attach_guest("guest", "--allow", NAME, network="open")  # noqa: F811
    own = [topology.HOST, topology.HOST6, guest.gateway, peer.ip_address, peer.endpoint()["ip6"], "127.0.0.1", "::1",
           "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1"]
    hijacker.give(guest, NAME, *own, far)
    wait_for(lambda: attempt(guest, "tcp", far, 7) == "open", 3, "the control")
    opened = host.run("nft", "list", "table", "inet", "moat")
    given = re.findall(r"set guest\d+_[0-9a-f]+_open[46]_\d+ \{.*?\n\t\}", opened, re.S)
    assert given and far in "".join(given)
    assert not [address for address in own if re.search(rf"\b{re.escape(address)} ", "".join(given))]


def test_it_opens_nothing_for_a_guest_without_names_in_its_rules(host, far, hijacker, internet):  # noqa: F811
    strict = host.attach_guest("strict", "--allow", "192.0.2.1")
    named = host.attach_guest("named", "--allow", NAME)
    for name in (NAME, "192.0.2.1"):
        hijacker.give(strict, name, far)
    hijacker.give(named, NAME, far)
    wait_for(lambda: attempt(named, "tcp", far, 7) == "open", 3, "the control")
    assert refused(strict, "tcp", far, 7) is True


@pytest.mark.parametrize("data", [
    struct.pack("=HHI", MESSAGE_GIVE, 0, 4) + b"abcd", struct.pack("=HHI", MESSAGE_GIVE, 0, 288) + b"\xff" * 288,
    struct.pack("=HHI", 9999, 0, 0), b"\0", b"\xff" * 8, struct.pack("=HHI", MESSAGE_GIVE, 0, 1 << 31)],
    ids=["too short", "no name", "unknown", "one byte", "no header", "wrong length"])
def test_what_is_no_message_changes_nothing(host, guest, far, data):  # noqa: F811
    """What has not even the form of a message ends the worker: the next one serves on."""
    first = Hijacker(host)
    first.channel.send(data)
    first.channel.close()
    if struct.unpack_from("=HHI", data.ljust(8, b"\xff"))[2] != len(data) - 8:
        wait_for(lambda: "runs again" in host.daemon.log(), 5, "another worker")
    second = Hijacker(host)
    second.give(guest, NAME, *[far] * 256)
    second.channel.close()
    wait_for(lambda: attempt(guest, "tcp", far, 7) == "open", 5, "moatd to go on listening")
    assert refused(guest, "tcp", topology.INTERNET, 7) is True
