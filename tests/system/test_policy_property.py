# SPDX-License-Identifier: GPL-2.0-or-later
"""Random policies over a small world, set on a live guest. Every verdict is asked three times: of packets, of
`moat policy test`, and of the evaluation that is written down here, which knows nothing of either. A failure names its
seed; MOAT_PROPERTY_SEED repeats it, MOAT_PROPERTY_POLICIES makes the walk longer."""

import contextlib
import errno
import ipaddress
import itertools
import os
import random
import select
import socket
import struct
import time

import pytest

import dns
import servers
import topology
import wait

POLICIES = int(os.environ.get("MOAT_PROPERTY_POLICIES", "40"))
PROBES = 30
PORTS = (7, 81)
NAME = "www.example.org"
COVERING = (NAME, ".example.org", "*.example.org")  # NAME is one of each
SILENCE_S = 0.3


# The plain meaning of rules

class Destination:
    def __init__(self, ip, public, named=False):
        self.ip, self.public, self.named = ipaddress.ip_address(ip), public, named

    def __str__(self):
        return str(self.ip)


class Rule:
    """A place ("any", "@public", "@private", a name or a prefix), a range of ports or None, a protocol or None."""

    def __init__(self, place, ports, protocol):
        self.place, self.ports, self.protocol = place, ports, protocol

    def __str__(self):
        text = str(self.place)
        if self.ports:
            text = f"[{text}]" if ":" in text else text
            text += f":{self.ports[0]}" + (f"-{self.ports[1]}" if self.ports[1] != self.ports[0] else "")
        return text + (f"/{self.protocol}" if self.protocol else "")

    def is_name(self):
        return isinstance(self.place, str) and "." in self.place

    def covers(self, destination, given):
        if self.place == "any":
            return True
        if self.place in ("@public", "@private"):
            return destination.public == (self.place == "@public")
        if self.is_name():
            return given and destination.named and self.place in COVERING
        return destination.ip.version == self.place.version and destination.ip in self.place

    def serves(self, protocol, port):
        if self.protocol not in (None, protocol):
            return False
        return not self.ports or (protocol != "icmp" and self.ports[0] <= port <= self.ports[1])

    def matches(self, probe, given):
        destination, protocol, port = probe
        return self.covers(destination, given) and self.serves(protocol, port)


class Policy:
    def __init__(self, allow, deny):
        self.allow, self.deny = allow, deny

    def answers(self):
        """Is NAME looked up for the guest?"""
        if any(rule.place in COVERING and not rule.ports and not rule.protocol for rule in self.deny):
            return False
        names = [rule.place for rule in self.allow if rule.is_name()]
        return not names or any(name in COVERING for name in names)

    def allows(self, probe, given):
        if any(rule.matches(probe, given) for rule in self.deny):
            return False
        return not self.allow or any(rule.matches(probe, given) for rule in self.allow)

    def __str__(self):
        return " ".join([f"--allow {rule}" for rule in self.allow] + [f"--deny {rule}" for rule in self.deny])


# Chance

def random_place(pick, world):
    kind = pick.randrange(10)
    if kind < 2:
        return pick.choice(["any", "@public", "@private"])
    if kind == 2:
        return pick.choice([*COVERING, "example.net", "*.www.example.org"])
    address = pick.choice(world).ip
    length = pick.choice([0, 8, 16, 24, 32, 32] if address.version == 4 else [0, 32, 48, 64, 128, 128])
    return ipaddress.ip_network((address, length), strict=False)


def random_rule(pick, world):
    protocol = pick.choice([None, None, "tcp", "udp", "icmp"])
    ports = pick.choice([None, (7, 7), (81, 81), (1, 80), (7, 81), (81, 65535), (8, 80)])
    return Rule(random_place(pick, world), None if protocol == "icmp" else ports, protocol)


def random_policy(pick, world):
    sizes = pick.choice([(1, 0), (3, 0), (3, 2), (6, 6), (0, 1), (0, 4), (12, 3)])
    return Policy(*([random_rule(pick, world) for _ in range(size)] for size in sizes))


def random_probe(pick, world):
    protocol = pick.choice(["tcp", "tcp", "udp", "icmp"])
    return pick.choice(world), protocol, 0 if protocol == "icmp" else pick.choice(PORTS)


# Packets

REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.ENETUNREACH, errno.EPERM)
numbers = itertools.count(20000)  # ports and echo numbers: no two flows of a test are one to connection tracking


def ask(sock, data):
    """A datagram is sent again before silence counts."""
    for _ in range(2):
        sock.send(data)
        if select.select([sock], [], [], SILENCE_S * wait.PATIENCE)[0]:
            return "open" if sock.recv(200) else "closed"
    return "silence"


def attempt(family, address, protocol, port):
    """ "open", "refused" or "silence"; called inside the guest."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    echo = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    with socket.socket(family, kind, echo if protocol == "icmp" else 0) as sock:
        sock.bind(("", next(numbers)))
        try:
            sock.settimeout(3 * wait.PATIENCE)
            sock.connect((address, port))
            if protocol == "tcp":
                return "open" if sock.recv(100) else "closed"
            kind = 8 if family == socket.AF_INET else 128
            return ask(sock, b"hi" if protocol == "udp" else struct.pack("!BBHHH", kind, 0, 0, 0, 1))
        except TimeoutError:
            return "silence"
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            return "refused"


@pytest.fixture
def unlimited(host):
    """The kernel bounds how many ICMP errors it sends; here each refusal counts."""
    names = ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit")
    before = [host.sysctl(name) for name in names]
    for name in names:
        host.sysctl(name, 0)
    yield
    for name, value in zip(names, before):
        host.sysctl(name, value)


@pytest.fixture
def guest(host, internet, unlimited):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", network="six")
    guest.sysctl("ipv4/ping_group_range", "0 2147483647")  # pings without raw sockets
    return guest


@pytest.fixture
def everything(host, lan, guest, internet):
    """Everything that answers: on both ports, over TCP and UDP, and to pings."""
    peer = host.attach_guest("peer", network="six")
    for port in PORTS:
        host.moat("port", "add", "peer", f"{port}:{port}", f"{port}:{port}/udp")
    with contextlib.ExitStack() as stack:
        for net, ip4, ip6 in ((host.world.outside, topology.INTERNET, topology.INTERNET6),
                              (lan, topology.LAN, topology.LAN6), (peer, peer.ip_address, peer.endpoint()["ip6"])):
            for address, port in itertools.product((ip4, ip6), PORTS):
                for kind in (servers.TcpServer, servers.UdpServer):
                    if (address, port) != (topology.INTERNET, 7):  # there already
                        stack.enter_context(kind(net, port, address))
        yield [Destination(topology.INTERNET, True, True), Destination(topology.INTERNET6, True, True),
               Destination(topology.LAN, False), Destination(topology.LAN6, True),
               Destination(topology.HOST, False), Destination(topology.HOST6, False),
               Destination(peer.ip_address, False), Destination(peer.endpoint()["ip6"], False)]


@pytest.mark.limit(30 + POLICIES)
def test_packets_find_what_the_rules_say(host, guest, everything):
    seed = os.environ.get("MOAT_PROPERTY_SEED") or str(time.time_ns())
    pick = random.Random(seed)
    verdicts = {True: 0, False: 0}
    for number in range(POLICIES):
        policy = random_policy(pick, everything)
        where = f"MOAT_PROPERTY_SEED={seed}, policy {number}: {policy}"
        host.call("policy.set", guest="guest", deny=["192.0.2.1"])  # what was given for names is forgotten
        host.call("policy.set", guest="guest", allow=[str(r) for r in policy.allow], deny=[str(r) for r in policy.deny])
        given = [dns.ask(guest, guest.gateway, NAME, kind).data != [] for kind in ("A", "AAAA")]
        assert given == [policy.answers()] * 2, where
        for _ in range(PROBES):
            probe = random_probe(pick, everything)
            destination, protocol, port = probe
            wanted = policy.allows(probe, given[0])
            text = f"[{destination}]" if destination.ip.version == 6 and port else str(destination)
            told = host.call("policy.test", guest="guest", destination=f"{text}{f':{port}' if port else ''}/{protocol}")
            found = guest.inside(attempt, servers.family_of(str(destination)), str(destination), protocol, port)
            assert (told["allowed"], found) == (wanted, "open" if wanted else "refused"), \
                f"{where}: {destination} {protocol} {port}: {told}, {found=}"
            verdicts[wanted] += 1
    assert min(verdicts.values()) >= POLICIES * PROBES / 10, verdicts
