# SPDX-License-Identifier: GPL-2.0-or-later
"""Root inside a guest has every capability there and speaks raw Ethernet. Each attack comes with a control that
proves that the same frame arrives when it is honest, or when nothing forbids it. The table of them all:

    /usr/bin/python3 -m pytest test_hostile.py --attacks
"""

import contextlib

import pytest

import frames
import servers
import topology
from frames import BROADCAST, ETH_ARP, ETH_IP, ETH_IP6, frame, listening, send

QUIET_S = 0.25
attack = pytest.mark.attack
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
    return [Party(host.attach_guest(f"{name}6", network="six")) for name in ("evil", "victim", "third")]


def udp_frame(evil, victim, mac=None, ip=None, sport=5000, **kwargs):
    return frame(mac or evil.mac, victim.mac, ETH_IP, frames.udp4(ip or evil.ip, victim.ip, sport, 5001, MARK, **kwargs))


# Who one is, on the bridge

def test_an_honest_frame_arrives(trio, bridge_nf):
    evil, victim, _ = trio
    assert arrives(evil.net, victim.net, udp_frame(evil, victim))


@attack("IPv4 from another guest's MAC address, or a made-up one",
        "IPv4 from the address of another guest, the gateway, the outside, nobody, the loopback",
        control="the same frame from its own")
def test_another_mac_or_address_does_not(trio, bridge_nf):
    evil, victim, third = trio
    for name, data in (("MAC", udp_frame(evil, victim, mac=third.mac)), ("made-up MAC", udp_frame(evil, victim, mac="02:12:34:56:78:9a")),
                       ("address", udp_frame(evil, victim, ip=third.ip)), ("both", udp_frame(evil, victim, mac=third.mac, ip=third.ip)),
                       ("gateway", udp_frame(evil, victim, ip=evil.guest.gateway)), ("outside", udp_frame(evil, victim, ip="8.8.8.8")),
                       ("none", udp_frame(evil, victim, ip="0.0.0.0")), ("loopback", udp_frame(evil, victim, ip="127.0.0.1"))):
        assert is_lost(evil.net, victim.net, data), name
    assert arrives(evil.net, victim.net, udp_frame(evil, victim))


@attack("ARP request and reply for another guest, the gateway, a free address",
        "ARP with another's MAC address, in the message or the frame",
        control="ARP for its own address")
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


@attack("an address that it gives itself",
        control="its own, on the same socket call")
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


@attack("another guest's MAC address on its link",
        control="its own, set back")
def test_another_mac_on_the_link_is_of_no_use(trio):
    evil, victim, third = trio
    assert evil.net.ping(victim.ip)
    evil.net.ip("link", "set", "eth0", "address", third.mac)
    assert not evil.net.ping(victim.ip, timeout=0.3)
    evil.net.ip("link", "set", "eth0", "address", evil.mac)
    assert evil.net.ping(victim.ip)


# What only a router, a switch or a server says

@attack("DHCP server",
        control="the same datagram from another port")
def test_no_dhcp_server(trio):
    evil, victim, _ = trio
    offer = frames.udp4(evil.ip, "255.255.255.255", 67, 68, MARK)
    assert is_lost(evil.net, victim.net, frame(evil.mac, BROADCAST, ETH_IP, offer))
    other = frames.udp4(evil.ip, "255.255.255.255", 66, 68, MARK)
    assert arrives(evil.net, victim.net, frame(evil.mac, BROADCAST, ETH_IP, other))


@attack("ICMP redirect",
        control="ICMP unreachable")
def test_no_redirects(trio):
    evil, victim, _ = trio
    body = frames.ip4(evil.ip) + frames.packet4(victim.ip, "8.8.8.8", 17, MARK)
    for kind, passes in ((5, False), (3, True)):
        data = bytes([kind, 1, 0, 0]) + body
        data = data[:2] + frames.checksum(data).to_bytes(2, "big") + data[4:]
        packet = frame(evil.mac, victim.mac, ETH_IP, frames.packet4(evil.ip, victim.ip, 1, data))
        assert (arrives if passes else is_lost)(evil.net, victim.net, packet), kind


@attack("VLAN tag, two of them, priority tag, QinQ", "LLDP, PPPoE, PTP, loopback and SNAP frames", "spanning tree",
        control="the same frame without")
def test_no_tags_and_no_strange_types(trio):
    evil, victim, _ = trio
    honest = udp_frame(evil, victim)
    assert is_lost(evil.net, victim.net, frames.vlan(honest))
    assert is_lost(evil.net, victim.net, frames.vlan(frames.vlan(honest)))
    assert is_lost(evil.net, victim.net, frames.vlan(honest, 0)), "a priority tag"
    assert is_lost(evil.net, victim.net, frames.vlan(honest, 7, frames.ETH_QINQ)), "QinQ"
    assert is_lost(evil.net, victim.net, frames.vlan(frames.vlan(honest), 7, frames.ETH_QINQ)), "QinQ, both"
    for kind in (0x88CC, 0x8863, 0x88F7, 0x9000, len(MARK)):
        assert is_lost(evil.net, victim.net, frame(evil.mac, BROADCAST, kind, MARK)), hex(kind)
    spanning_tree = b"\x42\x42\x03\0\0\0\0\0" + MARK
    assert is_lost(evil.net, victim.net, frame(evil.mac, "01:80:c2:00:00:00", len(spanning_tree), spanning_tree))
    assert arrives(evil.net, victim.net, honest)


@attack("spoofed IPv4 fragments, spoofed with a source route",
        control="the whole datagram from its own address")
def test_fragments_and_options_do_not_go_round(trio, bridge_nf):
    evil, victim, third = trio
    for fragment in (0x2000, 0x0005):
        assert is_lost(evil.net, victim.net, udp_frame(evil, victim, ip=third.ip, fragment=fragment))
    route = b"\x83\x07\x04" + frames.ip4(victim.ip) + b"\0"
    assert is_lost(evil.net, victim.net, udp_frame(evil, victim, ip=third.ip, options=route))


# IPv6

@attack("IPv6 on a network without",
        control="the same on a network that has it")
def test_ipv6_is_closed_where_the_network_has_none(host, trio, trio6):
    for (evil, victim, _), outcome in ((trio6, arrives), (trio, is_lost)):
        for source in (frames.link_local(evil.mac), evil.ip6 or "fd00::5"):
            data = frames.udp6(source, "ff02::1", 5000, 5001, MARK)
            assert outcome(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, data)), source


@attack("IPv6 from another's global or link-local address, from none, from another's MAC address",
        control="from its own global and link-local address")
def test_ipv6_identity(trio6):
    evil, victim, third = trio6
    own = frames.udp6(evil.ip6, victim.ip6, 5000, 5001, MARK)
    assert arrives(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, own))
    local = frames.udp6(frames.link_local(evil.mac), "ff02::1", 5000, 5001, MARK)
    assert arrives(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, local))
    for source in (third.ip6, frames.link_local(third.mac), "fe80::1", "fe80::1234", "2001:db8::66", "::"):
        data = frames.udp6(source, victim.ip6, 5000, 5001, MARK)
        assert is_lost(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, data)), source
    assert is_lost(evil.net, victim.net, frame(third.mac, victim.mac, ETH_IP6, own))


@attack("neighbour advertisement for another guest, for the router", control="neighbour advertisement for itself")
@attack("router advertisement, ICMPv6 redirect; behind a hop-by-hop option", control="ping, behind the option too")
@attack("DHCPv6 server", control="the same datagram from another port")
def test_no_router_advertisements_and_false_neighbours(trio6):
    evil, victim, third = trio6
    option = b"\x02\x01" + frames.mac(evil.mac)

    def neighbour(target):
        return frames.icmp6(evil.ip6, victim.ip6, 136, b"\x60\0\0\0" + frames.ip6(target) + option)

    assert arrives(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, neighbour(evil.ip6)), frames.ip6(evil.ip6) + option)
    for target in (third.ip6, "fe80::1"):
        assert is_lost(evil.net, victim.net, frame(evil.mac, victim.mac, ETH_IP6, neighbour(target)), frames.ip6(target) + option)
    for kind, outcome in ((128, arrives), (134, is_lost), (137, is_lost)):
        packet = frames.icmp6(evil.ip6, "ff02::1", kind, bytes(12) + MARK + bytes(40))
        for name, data in (("plain", packet), ("behind an option", frames.behind_options6(packet, frames.HOP_BY_HOP))):
            assert outcome(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, data)), (kind, name)
    for port, outcome in ((548, arrives), (547, is_lost)):
        data = frames.udp6(evil.ip6, "ff02::1", port, 546, MARK)
        assert outcome(evil.net, victim.net, frame(evil.mac, "33:33:00:00:00:01", ETH_IP6, data)), port


@attack("neighbour solicitation from another's address, or from none for another's (duplicate detection)",
        control="from none for its own, from its own for another's")
def test_no_false_solicitations(trio6):
    evil, victim, third = trio6

    def asks(source, target, option=b""):
        destination = frames.solicited_node(target)
        data = frames.icmp6(source, destination, 135, bytes(4) + frames.ip6(target) + option)
        return frame(evil.mac, "33:33:" + ":".join(f"{byte:02x}" for byte in frames.ip6(destination)[12:]), ETH_IP6, data)

    def part(source, target):
        return frames.ip6(source) + frames.ip6(frames.solicited_node(target))

    for source, target in ((evil.ip6, victim.ip6), ("::", evil.ip6), ("::", frames.link_local(evil.mac))):
        assert arrives(evil.net, victim.net, asks(source, target), part(source, target)), (source, target)
    for source, target in (("::", victim.ip6), ("::", third.ip6), ("::", frames.link_local(victim.mac)), ("::", "fe80::1"),
                           (third.ip6, victim.ip6), ("fe80::1", victim.ip6)):
        assert is_lost(evil.net, victim.net, asks(source, target), part(source, target)), (source, target)


@attack("router advertisement, redirect, DHCPv6 server and false neighbours in fragments, behind options in a later one",
        control="a datagram in as many fragments")
def test_nothing_of_it_in_fragments(trio6, bridge_nf):
    evil, victim, third = trio6

    def pieces(packet, to="33:33:00:00:00:01"):
        return [frame(evil.mac, to, ETH_IP6, piece) for piece in frames.fragments6(packet, 64)]

    long = bytes(64) + MARK
    assert arrives(evil.net, victim.net, pieces(frames.udp6(evil.ip6, victim.ip6, 5000, 5001, long), victim.mac))
    option = b"\x02\x01" + frames.mac(evil.mac)
    advert = frames.icmp6(evil.ip6, "ff02::1", 136, b"\x60\0\0\0" + frames.ip6(third.ip6) + option)
    for name, packet, part in (("RA", frames.icmp6(evil.ip6, "ff02::1", 134, bytes(12) + MARK), MARK),
                               ("redirect", frames.icmp6(evil.ip6, "ff02::1", 137, bytes(12) + MARK), MARK),
                               ("DHCPv6", frames.udp6(evil.ip6, "ff02::1", 547, 546, MARK), MARK),
                               ("false NA", advert, option)):
        assert is_lost(evil.net, victim.net, pieces(packet), part), name
        hidden = frames.behind_options6(packet, frames.DESTINATION_OPTIONS)
        assert is_lost(evil.net, victim.net, [frame(evil.mac, BROADCAST, ETH_IP6, piece)
                                              for piece in frames.fragments6(hidden)], part[:8]), f"{name} in a later fragment"


@attack("source routes, IPv4 and IPv6, between bridged ports and through the gateway", control="the same packet without")
def test_no_source_routes(host, internet):
    host.moat("net", "create", "six", "--ipv6")
    evil, victim, third = (Party(host.attach_guest(name, network="six")) for name in ("evil", "victim", "third"))
    for net in (host, third.net):  # as careless as can be
        for name in ("ipv4/conf/all/accept_source_route", "ipv6/conf/all/accept_source_route"):
            net.sysctl(name, 1)
    gateway = host.links()[host.bridge_of("six")]["address"]
    addresses = host.call("network.get", name="six")
    try:
        for party, mac, ip, ip6 in ((third, third.mac, third.ip, third.ip6),
                                    (None, gateway, addresses["gateway"], addresses["gateway6"])):
            listener = party.net if party else victim.net
            plain4 = frames.udp4(evil.ip, party.ip if party else victim.ip, 5000, 5001, MARK)
            plain6 = frames.udp6(evil.ip6, party.ip6 if party else victim.ip6, 5000, 5001, MARK)
            assert arrives(evil.net, listener, frame(evil.mac, mac, ETH_IP, plain4))
            assert arrives(evil.net, listener, frame(evil.mac, mac, ETH_IP6, plain6))
            for kind in (0x83, 0x89):
                option = bytes([kind, 7, 4]) + frames.ip4(victim.ip) + b"\0"
                data = frame(evil.mac, mac, ETH_IP, frames.udp4(evil.ip, ip, 5000, 5001, MARK, options=option))
                assert is_lost(evil.net, listener, data) and is_lost(evil.net, victim.net, data), hex(kind)
            for kind in (0, 3, 4):
                routed = frames.routed_on6(frames.udp6(evil.ip6, ip6, 5000, 5001, MARK), victim.ip6, kind)
                data = frame(evil.mac, mac, ETH_IP6, routed)
                assert is_lost(evil.net, listener, data) and is_lost(evil.net, victim.net, data), kind
    finally:
        for name in ("ipv4/conf/all/accept_source_route", "ipv6/conf/all/accept_source_route"):
            host.sysctl(name, 0)


# A guest whose port is a routed one

@pytest.fixture
def routed(host, internet):
    """A guest with a policy, and a bridged peer."""
    return Party(host.attach_guest("evil", "--deny", "192.0.2.1")), Party(host.attach_guest("victim"))


@attack("routed port: another's source addresses, IPv6 where there is none",
        control="its own address")
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


@pytest.fixture
def ruled(host, internet):
    """A guest that may call port 5002 of its peer over UDP and nothing else of it, on a network with IPv6."""
    host.moat("net", "create", "six", "--ipv6")
    victim = Party(host.attach_guest("victim", network="six"))
    third = Party(host.attach_guest("third", network="six"))
    evil = Party(host.attach_guest("evil", "--allow", f"{victim.ip}:5002/udp", "--allow", f"[{victim.ip6}]:5002/udp",
                                   "--allow", third.ip, "--allow", third.ip6, network="six"))
    return evil, victim, third, host.links()[evil.port]["address"]


@attack("routed port: IPv6 from another's global or link-local address, from none", control="from its own")
def test_ipv6_sources_of_a_routed_port(ruled):
    evil, victim, third, gateway = ruled

    def to_victim(source):
        return frame(evil.mac, gateway, ETH_IP6, frames.udp6(source, victim.ip6, 5000, 5002, MARK))

    assert arrives(evil.net, victim.net, to_victim(evil.ip6))
    for source in (victim.ip6, third.ip6, frames.link_local(third.mac), frames.link_local(evil.mac), "fe80::1234", "fe80::1",
                   "2001:db8::66", "::", "::1"):
        assert is_lost(evil.net, victim.net, to_victim(source)), source


@attack("policy: a denied port in fragments of 8 bytes, also out of order, IPv4 and IPv6",
        control="a permitted port in the same fragments")
@pytest.mark.parametrize("family", [4, 6])
def test_fragments_do_not_go_round_a_rule(ruled, family, bridge_nf):
    evil, victim, _, gateway = ruled
    text = bytes(40) + MARK * 2

    def pieces(port, size):
        if family == 4:
            return [frame(evil.mac, gateway, ETH_IP, piece)
                    for piece in frames.fragments4(frames.udp4(evil.ip, victim.ip, 5000, port, text), size)]
        return [frame(evil.mac, gateway, ETH_IP6, piece)
                for piece in frames.fragments6(frames.udp6(evil.ip6, victim.ip6, 5000, port, text), size)]

    for size in (8, 48):
        part = MARK[:8] if size == 8 else MARK
        for order in (1, -1):
            assert arrives(evil.net, victim.net, pieces(5002, size)[::order], part), (size, order)
            assert is_lost(evil.net, victim.net, pieces(5001, size)[::order], part), (size, order)


@attack("policy: a denied port behind hop-by-hop and destination options, in fragments too",
        control="a permitted port behind the same headers")
def test_extension_headers_do_not_go_round_a_rule(ruled, bridge_nf):
    evil, victim, _, gateway = ruled

    def ways(port):
        packet = frames.udp6(evil.ip6, victim.ip6, 5000, port, bytes(8) + MARK)
        behind = frames.behind_options6(packet, frames.DESTINATION_OPTIONS)
        yield "destination options", [behind]
        yield "hop-by-hop options", [frames.behind_options6(packet, frames.HOP_BY_HOP)]
        yield "both", [frames.behind_options6(behind, frames.HOP_BY_HOP)]
        yield "in a later fragment", frames.fragments6(behind, 16)

    for (name, permitted), (_, denied) in zip(ways(5002), ways(5001)):
        for packets, outcome in ((permitted, arrives), (denied, is_lost)):
            data = [frame(evil.mac, gateway, ETH_IP6, packet) for packet in packets]
            assert outcome(evil.net, victim.net, data, MARK[:8]), name


@attack("policy: a source route by a permitted guest, or the gateway, to a denied one, IPv4 and IPv6",
        control="to the permitted guest without")
def test_source_routes_do_not_go_round_a_rule(host, ruled):
    evil, victim, third, gateway = ruled
    network = host.call("network.get", name="six")
    for sender, hop, kind in ((frames.udp4, third.ip, ETH_IP), (frames.udp6, third.ip6, ETH_IP6)):
        source = evil.ip if kind == ETH_IP else evil.ip6
        assert arrives(evil.net, third.net, frame(evil.mac, gateway, kind, sender(source, hop, 5000, 5001, MARK)))
    option = b"\x83\x07\x04" + frames.ip4(victim.ip) + b"\0"
    for hop, hop6 in ((third.ip, third.ip6), (network["gateway"], network["gateway6"])):
        for data in (frame(evil.mac, gateway, ETH_IP, frames.udp4(evil.ip, hop, 5000, 5001, MARK, options=option)),
                     frame(evil.mac, gateway, ETH_IP6, frames.routed_on6(
                         frames.udp6(evil.ip6, hop6, 5000, 5001, MARK), victim.ip6))):
            assert is_lost(evil.net, victim.net, data), hop


@attack("the host's neighbour entries: ARP and neighbour advertisements for a peer, bridged and routed",
        control="the peer answers the host before and after")
@pytest.mark.parametrize("rules", [[], ["--deny", "192.0.2.1"]], ids=["bridged", "routed"])
def test_the_host_is_not_led_astray(host, rules):
    host.moat("net", "create", "six", "--ipv6")
    victim = Party(host.attach_guest("victim", network="six"))
    evil = Party(host.attach_guest("evil", *rules, network="six"))
    gateway = host.links()[evil.port]["address"]
    network = host.call("network.get", name="six")
    option = b"\x02\x01" + frames.mac(evil.mac)
    lies = [frame(evil.mac, gateway, ETH_ARP, frames.arp(operation, evil.mac, address, gateway, network["gateway"]))
            for operation in (1, 2) for address in (victim.ip, network["gateway"])]
    lies += [frame(evil.mac, gateway, ETH_IP6, frames.icmp6(source, "fe80::1", 136, b"\x60\0\0\0" + frames.ip6(target) + option))
             for source in (evil.ip6, victim.ip6) for target in (victim.ip6, "fe80::1")]
    with servers.TcpServer(victim.net, 80, name="victim"), servers.TcpServer(victim.net, 80, "::", name="victim"):
        for _ in range(2):
            assert servers.tcp_greeting(host, victim.ip, 80)[0] == "victim"
            assert servers.tcp_greeting(host, victim.ip6, 80)[0] == "victim"
            send(evil.net, "eth0", lies)


@attack("denied peer: static neighbour, own routes and addresses, nft flush inside, frames to its MAC, broadcast",
        control="a peer without the rule")
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

@attack("into mode outbound: from host, peer, LAN; static neighbour, frames to its MAC, broadcast",
        control="into a guest beside it, and out of it")
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


@attack("isolated peer: connection, ping, static neighbour, frames to its MAC",
        control="to the outside, and from the host to the peer")
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

@attack("services of the host, by each of its addresses",
        "services on the host's loopback: source 127.0.0.1 routed to the gateway, raw frames",
        control="from a network with --host-access")
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
