# SPDX-License-Identifier: GPL-2.0-or-later
"""Root inside a guest has every capability there and speaks raw Ethernet. Each attack comes with a control that
proves that the same frame arrives when it is honest, or when nothing forbids it."""

import contextlib

import pytest

import frames
import servers
import topology
from frames import BROADCAST, ETH_ARP, ETH_IP, ETH_IP6, frame, listening, send

QUIET_S = 0.25
MARK = b"moat-hostile-test"


class Party:
    """A guest as an attacker knows it."""

    def __init__(self, guest):
        endpoint = guest.endpoint()
        self.net, self.guest = guest, guest
        self.ip, self.ip6, self.mac = endpoint["ip"], endpoint["ip6"], endpoint["mac"]
        self.port = endpoint["host_interface"]


def arrives(sender, receiver, data, part=MARK):
    with listening(receiver) as listener:
        send(sender, "eth0", data)
        return listener.hears(part, 2.0)


def is_lost(sender, receiver, data, part=MARK):
    with listening(receiver) as listener:
        send(sender, "eth0", data)
        return not listener.hears(part, QUIET_S)


@pytest.fixture
def trio(host):
    return [Party(host.attach_guest(name)) for name in ("evil", "victim", "third")]


@pytest.fixture
def trio6(host):
    host.moat("net", "create", "six", "--ipv6")
    return [Party(host.attach_guest(name, network="six")) for name in ("evil", "victim", "third")]


def udp_frame(evil, victim, mac=None, ip=None, sport=5000, **kwargs):
    return frame(mac or evil.mac, victim.mac, ETH_IP, frames.udp4(ip or evil.ip, victim.ip, sport, 5001, MARK, **kwargs))


# Who one is, on the bridge

def test_an_honest_frame_arrives(trio, bridge_nf):
    evil, victim, _ = trio
    assert arrives(evil.net, victim.net, udp_frame(evil, victim))


def test_another_mac_or_address_does_not(trio, bridge_nf):
    evil, victim, third = trio
    for name, data in (("MAC", udp_frame(evil, victim, mac=third.mac)), ("made-up MAC", udp_frame(evil, victim, mac="02:12:34:56:78:9a")),
                       ("address", udp_frame(evil, victim, ip=third.ip)), ("both", udp_frame(evil, victim, mac=third.mac, ip=third.ip)),
                       ("gateway", udp_frame(evil, victim, ip=evil.guest.gateway)), ("outside", udp_frame(evil, victim, ip="8.8.8.8")),
                       ("none", udp_frame(evil, victim, ip="0.0.0.0")), ("loopback", udp_frame(evil, victim, ip="127.0.0.1"))):
        assert is_lost(evil.net, victim.net, data), name
    assert arrives(evil.net, victim.net, udp_frame(evil, victim))


def test_arp_for_others_does_not(trio, bridge_nf):
    evil, victim, third = trio

    def says(source, sender_mac, sender_ip, operation=2):
        return frame(source, victim.mac, ETH_ARP, frames.arp(operation, sender_mac, sender_ip, victim.mac, victim.ip))

    part = frames.mac(evil.mac) + frames.ip4(evil.ip)
    assert arrives(evil.net, victim.net, says(evil.mac, evil.mac, evil.ip), part)
    for sender_ip in (third.ip, evil.guest.gateway, "10.88.200.200"):
        for operation in (1, 2):
            part = frames.mac(evil.mac) + frames.ip4(sender_ip)
            assert is_lost(evil.net, victim.net, says(evil.mac, evil.mac, sender_ip, operation), part), sender_ip
    part = frames.mac(third.mac) + frames.ip4(evil.ip)
    assert is_lost(evil.net, victim.net, says(evil.mac, third.mac, evil.ip), part)
    assert is_lost(evil.net, victim.net, says(third.mac, third.mac, third.ip), frames.mac(third.mac) + frames.ip4(third.ip))


def test_extra_addresses_are_of_no_use(trio, bridge_nf):
    evil, victim, _ = trio
    assert evil.net.ping(victim.ip)
    evil.net.ip("address", "add", "10.88.77.77/16", "dev", "eth0")
    with servers.UdpServer(victim.net, 9) as server:
        sock = evil.net.socket(kind=2)
        with contextlib.closing(sock):
            sock.bind(("10.88.77.77", 0))
            sock.sendto(b"hi", (victim.ip, 9))
            sock.settimeout(QUIET_S)
            with pytest.raises(OSError):
                sock.recv(10)
        assert server.clients == []
        assert servers.udp_greeting(evil.net, victim.ip, 9)


def test_another_mac_on_the_link_is_of_no_use(trio):
    evil, victim, third = trio
    assert evil.net.ping(victim.ip)
    evil.net.ip("link", "set", "eth0", "address", third.mac)
    assert not evil.net.ping(victim.ip, timeout=0.3)
    evil.net.ip("link", "set", "eth0", "address", evil.mac)
    assert evil.net.ping(victim.ip)


# What only a router, a switch or a server says

def test_no_dhcp_server(trio):
    evil, victim, _ = trio
    offer = frames.udp4(evil.ip, "255.255.255.255", 67, 68, MARK)
    assert is_lost(evil.net, victim.net, frame(evil.mac, BROADCAST, ETH_IP, offer))
    other = frames.udp4(evil.ip, "255.255.255.255", 66, 68, MARK)
    assert arrives(evil.net, victim.net, frame(evil.mac, BROADCAST, ETH_IP, other))


def test_no_redirects(trio):
    evil, victim, _ = trio
    body = frames.ip4(evil.ip) + frames.packet4(victim.ip, "8.8.8.8", 17, MARK)
    for kind, passes in ((5, False), (3, True)):
        data = bytes([kind, 1, 0, 0]) + body
        data = data[:2] + frames.checksum(data).to_bytes(2, "big") + data[4:]
        packet = frame(evil.mac, victim.mac, ETH_IP, frames.packet4(evil.ip, victim.ip, 1, data))
        assert (arrives if passes else is_lost)(evil.net, victim.net, packet), kind


def test_no_tags_and_no_strange_types(trio):
    evil, victim, _ = trio
    honest = udp_frame(evil, victim)
    assert is_lost(evil.net, victim.net, frames.vlan(honest))
    assert is_lost(evil.net, victim.net, frames.vlan(frames.vlan(honest)))
    assert is_lost(evil.net, victim.net, frames.vlan(honest, 0)), "a priority tag"
    for kind in (0x88CC, 0x8863, 0x88F7, 0x9000, len(MARK)):
        assert is_lost(evil.net, victim.net, frame(evil.mac, BROADCAST, kind, MARK)), hex(kind)
    spanning_tree = b"\x42\x42\x03\0\0\0\0\0" + MARK
    assert is_lost(evil.net, victim.net, frame(evil.mac, "01:80:c2:00:00:00", len(spanning_tree), spanning_tree))
    assert arrives(evil.net, victim.net, honest)


def test_fragments_and_options_do_not_go_round(trio, bridge_nf):
    evil, victim, third = trio
    for fragment in (0x2000, 0x0005):
        assert is_lost(evil.net, victim.net, udp_frame(evil, victim, ip=third.ip, fragment=fragment))
    route = b"\x83\x07\x04" + frames.ip4(victim.ip) + b"\0"
    assert is_lost(evil.net, victim.net, udp_frame(evil, victim, ip=third.ip, options=route))


# IPv6

def test_ipv6_is_closed_where_the_network_has_none(trio):
    evil, victim, _ = trio
    for source in ("fe80::1", "fd00::5"):
        data = frames.udp6(source, "ff02::1", 5000, 5001, MARK)
        assert is_lost(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, data)), source


def test_ipv6_identity(trio6):
    evil, victim, third = trio6
    own = frames.udp6(evil.ip6, victim.ip6, 5000, 5001, MARK)
    assert arrives(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, own))
    for source in (third.ip6, "fe80::1", "2001:db8::66", "::"):
        data = frames.udp6(source, victim.ip6, 5000, 5001, MARK)
        assert is_lost(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, data)), source
    assert is_lost(evil.net, victim.net, frame(third.mac, victim.mac, ETH_IP6, own))


def test_no_router_advertisements_and_false_neighbours(trio6):
    evil, victim, third = trio6
    option = b"\x02\x01" + frames.mac(evil.mac)

    def neighbour(target):
        return frames.icmp6(evil.ip6, victim.ip6, 136, b"\x60\0\0\0" + frames.ip6(target) + option)

    assert arrives(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, neighbour(evil.ip6)), frames.ip6(evil.ip6) + option)
    for target in (third.ip6, "fe80::1"):
        assert is_lost(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, neighbour(target)), frames.ip6(target) + option)
    for kind in (134, 137):
        data = frames.icmp6(evil.ip6, "ff02::1", kind, bytes(12) + MARK + bytes(40))
        assert is_lost(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, data)), kind
        behind = frames.icmp6(evil.ip6, "ff02::1", kind, bytes(12) + MARK + bytes(40))[40:]
        hop = frames.packet6(evil.ip6, "ff02::1", 0, bytes([58, 0, 1, 4, 0, 0, 0, 0]) + behind)
        assert is_lost(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, hop)), f"{kind} behind an option"
    server = frames.udp6(evil.ip6, "ff02::1", 547, 546, MARK)
    assert is_lost(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, server))


# A guest whose port is a routed one

@pytest.fixture
def routed(host, internet):
    """A guest with a policy, and a bridged peer."""
    return Party(host.attach_guest("evil", "--deny", "192.0.2.1")), Party(host.attach_guest("victim"))


def test_sources_of_a_routed_port(host, routed, bridge_nf):
    evil, victim = routed
    gateway = host.links()[evil.port]["address"]

    def to_victim(source):
        return frame(evil.mac, gateway, ETH_IP, frames.udp4(source, victim.ip, 5000, 5001, MARK))

    assert arrives(evil.net, victim.net, to_victim(evil.ip))
    for source in ("10.88.99.99", evil.guest.gateway, "8.8.8.8", "127.0.0.1", victim.ip, "0.0.0.0"):
        assert is_lost(evil.net, victim.net, to_victim(source)), source
    data = frames.udp6("fe80::5", "ff02::1", 5000, 5001, MARK)
    assert is_lost(evil.net, victim.net, frame(evil.mac, BROADCAST, ETH_IP6, data))


def test_a_policy_is_not_dodged_at_l2(host, internet):
    """Frames to the peer's own MAC, a static neighbour entry, one's own routes and rules: all end at the host."""
    victim = Party(host.attach_guest("victim"))
    evil = Party(host.attach_guest("evil", "--deny", victim.ip))
    free = Party(host.attach_guest("free"))
    with servers.TcpServer(victim.net, 80, name="victim") as server:
        assert servers.tcp_greeting(free.net, victim.ip, 80)[0] == "victim"
        reached = len(server.clients)
        assert servers.unreachable(evil.net, "tcp", victim.ip, 80)
        evil.net.ip("neigh", "replace", victim.ip, "lladdr", victim.mac, "dev", "eth0", "nud", "permanent")
        assert servers.unreachable(evil.net, "tcp", victim.ip, 80)
        evil.net.run("nft", "flush", "ruleset")
        evil.net.ip("route", "replace", victim.ip, "dev", "eth0")
        assert servers.unreachable(evil.net, "tcp", victim.ip, 80)
        assert is_lost(evil.net, victim.net, udp_frame(evil, victim))
        assert is_lost(evil.net, victim.net, frame(evil.mac, BROADCAST, ETH_IP, frames.udp4(evil.ip, victim.ip, 1, 2, MARK)))
        evil.net.ip("address", "add", "10.88.66.66/16", "dev", "eth0")
        evil.net.ip("address", "del", f"{evil.ip}/16", "dev", "eth0")
        assert servers.unreachable(evil.net, "tcp", victim.ip, 80)
        assert len(server.clients) == reached


# Modes

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_nobody_gets_into_an_outbound_guest(host, lan, internet, protocol, bridge_nf):
    """Whatever root of a peer does: static neighbours, the guest's own MAC, raw frames, a hand-made route of the LAN."""
    closed = Party(host.attach_guest("closed", "--mode", "outbound"))
    open_ = Party(host.attach_guest("open"))
    peer = Party(host.attach_guest("peer"))
    kind = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    lan.ip("route", "add", "10.88.0.0/16", "via", topology.HOST)
    try:
        with kind(closed.net, 80, name="closed") as server, kind(open_.net, 80, name="open"):
            assert servers.greeting(peer.net, protocol, open_.ip, 80)[0] == "open"
            assert servers.greeting(closed.net, protocol, topology.INTERNET, 7)[0] == "outside"
            for attempt in ("plain", "static neighbour"):
                for net in (host, peer.net, lan):
                    assert servers.unreachable(net, protocol, closed.ip, 80), attempt
                peer.net.ip("neigh", "replace", closed.ip, "lladdr", closed.mac, "dev", "eth0", "nud", "permanent")
            assert is_lost(peer.net, closed.net, udp_frame(peer, closed))
            assert is_lost(peer.net, closed.net, frame(peer.mac, BROADCAST, ETH_IP, frames.udp4(peer.ip, closed.ip, 1, 2, MARK)))
            assert server.clients == []
    finally:
        lan.ip("route", "del", "10.88.0.0/16")


def test_isolated_guests_reach_the_outside_only(host, internet, bridge_nf):
    host.moat("net", "create", "apart", "--isolated", "--subnet", "10.99.0.0/24")
    one, two = (Party(host.attach_guest(name, network="apart")) for name in ("one", "two"))
    shared = Party(host.attach_guest("shared"))
    with servers.TcpServer(two.net, 80, name="two") as server, servers.TcpServer(shared.net, 80, name="shared"):
        assert servers.tcp_greeting(one.net, topology.INTERNET, 7)[0] == "outside"
        assert one.net.ping(one.guest.gateway)
        assert servers.tcp_greeting(host, two.ip, 80)[0] == "two"
        reached = len(server.clients)
        assert servers.unreachable(one.net, "tcp", two.ip, 80) and not one.net.ping(two.ip, timeout=0.3)
        one.net.ip("neigh", "replace", two.ip, "lladdr", two.mac, "dev", "eth0", "nud", "permanent")
        assert servers.unreachable(one.net, "tcp", two.ip, 80)
        assert is_lost(one.net, two.net, udp_frame(one, two))
        assert servers.unreachable(one.net, "tcp", shared.ip, 80)
        assert len(server.clients) == reached


# The host

def test_the_host_is_closed_but_for_host_access(host, internet):
    host.moat("net", "create", "trusted", "--host-access", "--subnet", "10.98.0.0/24")
    plain, trusted = Party(host.attach_guest("plain")), Party(host.attach_guest("trusted", network="trusted"))
    with servers.TcpServer(host, 90, name="host"), servers.TcpServer(host, 91, "127.0.0.1", "loopback") as loopback:
        assert servers.tcp_greeting(trusted.net, topology.HOST, 90)[0] == "host"
        assert servers.tcp_greeting(trusted.net, trusted.guest.gateway, 90)[0] == "host"
        for address in (topology.HOST, plain.guest.gateway, trusted.guest.gateway):
            assert servers.unreachable(plain.net, "tcp", address, 90), address
        assert plain.net.ping(plain.guest.gateway) and plain.net.ping(topology.HOST)
        for party in (plain, trusted):
            party.net.ip("route", "replace", "127.0.0.1", "via", party.guest.gateway, "dev", "eth0", "table", "7", check=False)
            gateway = host.links()[host.bridge_of(party.guest.endpoint()["network"])]["address"]
            syn = frames.packet4(party.ip, "127.0.0.1", 6, b"\x30\x39\0\x5b" + bytes(8) + b"\x50\x02\x20\0" + bytes(4))
            send(party.net, "eth0", frame(party.mac, gateway, ETH_IP, syn), 3)
            for address in (topology.HOST, party.guest.gateway):
                assert servers.unreachable(party.net, "tcp", address, 91), address
        assert loopback.clients == []
