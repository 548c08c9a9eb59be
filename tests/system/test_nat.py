# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests reach of the outside, and how it looks from there."""

import contextlib
import re
import socket
import struct

import pytest

import servers
import topology
from netns import in_netns
from servers import greeting
from wait import wait_for

protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
modes = pytest.mark.parametrize("mode", ["full", "outbound"])


@protocols
@modes
def test_outside_sees_the_host(host, internet, protocol, mode, bridge_nf):
    guest = host.attach_guest("g", "--mode", mode)
    assert greeting(guest, protocol, topology.INTERNET, 7) == ("outside", topology.HOST)


@protocols
def test_the_lan_sees_the_host(host, lan, protocol, bridge_nf):
    guest = host.attach_guest("g")
    with (servers.TcpServer if protocol == "tcp" else servers.UdpServer)(lan, 9000, name="lan"):
        assert greeting(guest, protocol, topology.LAN, 9000) == ("lan", topology.HOST)


@modes
def test_ping_and_large_ping(host, mode, bridge_nf):
    guest = host.attach_guest("g", "--mode", mode)
    assert guest.ping(topology.INTERNET, count=3)
    assert guest.ping(topology.INTERNET, size=1472, dont_fragment=True)
    assert not guest.ping(topology.INTERNET, size=1473, dont_fragment=True, timeout=0.3)
    assert guest.ping(topology.INTERNET, size=8000), "fragments do not pass"


@modes
@pytest.mark.parametrize("method", ["udp", "icmp"])
def test_traceroute(host, mode, method, bridge_nf):
    """Each hop's "time exceeded" finds the way back to the guest."""
    guest = host.attach_guest("g", "--mode", mode)
    # Hosts bound how many errors they send a second: as traceroute does, ask again.
    hops = [wait_for(lambda ttl=ttl: trace_hop(guest, method, ttl), 8, f"an answer of hop {ttl}") for ttl in (1, 2, 3)]
    assert hops == [guest.gateway, topology.ROUTER, topology.INTERNET]


def trace_hop(net, method, ttl):
    """The address that answers a packet which lives for so many hops."""
    if method == "icmp":
        # ping reports who let the packet die.
        out = net.run("ping", "-n", "-c", "1", "-W", "1", "-t", str(ttl), topology.INTERNET, check=False).stdout
        match = re.search(r"(?:From|from) ([\d.]+)", out)
        return match and match.group(1)
    with net.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.settimeout(1)
        sock.connect((topology.INTERNET, 33434))
        sock.send(b"x")
        with contextlib.suppress(OSError):
            sock.recv(100)
        try:
            _, ancillary, _, _ = sock.recvmsg(1000, 1000, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return None
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, 11):
                return socket.inet_ntoa(data[20:24])
    return None


@modes
def test_closed_ports_outside_are_refused_at_once(host, mode, bridge_nf):
    guest = host.attach_guest("g", "--mode", mode)
    with pytest.raises(ConnectionRefusedError):
        servers.connect(guest, topology.INTERNET, 9)
    with guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((topology.INTERNET, 9))
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(10)


@modes
def test_large_download_and_upload(host, internet, mode, bridge_nf):
    guest = host.attach_guest("g", "--mode", mode)
    count = 50_000_000
    assert len(servers.http_get(guest, topology.INTERNET, f"/bytes/{count}", timeout=30)) == count
    assert servers.http_post(guest, topology.INTERNET, count) == f"{count} bytes\n"


@contextlib.contextmanager
def narrow_path(world, mtu):
    """The router's way carries less than the links at both ends; it says so, once to each side."""
    routes = [(topology.LAN_NET, "lan0", topology.ROUTER), ("198.51.100.0/24", "out0", topology.ROUTER_OUTSIDE)]
    for subnet, link, source in routes:
        world.router.ip("route", "replace", subnet, "dev", link, "proto", "kernel", "scope", "link", "src", source, "mtu", str(mtu))
    try:
        yield
    finally:
        for subnet, link, source in routes:
            world.router.ip("route", "replace", subnet, "dev", link, "proto", "kernel", "scope", "link", "src", source)
        for net in (world.router, world.outside, world.lan):
            net.ip("route", "flush", "cache")


@modes
def test_transfers_through_a_smaller_path(host, world, internet, mode, bridge_nf):
    """"Too big" comes back through the translation, to the guest that has to know."""
    guest = host.attach_guest("g", "--mode", mode)
    with narrow_path(world, 1300):
        count = 5_000_000
        assert servers.http_post(guest, topology.INTERNET, count) == f"{count} bytes\n"
        assert len(servers.http_get(guest, topology.INTERNET, f"/bytes/{count}")) == count
        route = guest.ip("route", "get", topology.INTERNET)
        assert "mtu 1300" in route, f"the guest was not told of the smaller path: {route}"


def test_mss_is_clamped_to_a_smaller_way_out(host, world, internet):
    """The host's own way out carries less than the guest's network: no packet too large is ever sent."""
    network = host.call("network.create", name="big", mtu=1500)
    guest = host.attach_guest("g", network="big")
    host.ip("link", "set", "eth0", "mtu", "1300")
    world.router.nft("table ip mute { chain c { type filter hook output priority 0; icmp type destination-unreachable drop; } "
                     "chain f { type filter hook forward priority 0; icmp type destination-unreachable drop; } }")
    try:
        with servers.connect(guest, topology.INTERNET, 7) as sock:
            servers.read_line(sock)
            mss = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            assert mss <= 1300 - 40, f"the segment size is {mss}"
        assert len(servers.http_get(guest, topology.INTERNET, "/bytes/3000000")) == 3000000
        assert servers.http_post(guest, topology.INTERNET, 3000000) == "3000000 bytes\n"
        assert network["mtu"] == 1500
    finally:
        host.ip("link", "set", "eth0", "mtu", "1500")
        world.router.nft("delete table ip mute")


@protocols
def test_guests_of_one_network_see_each_others_addresses(host, protocol, bridge_nf):
    """Traffic inside a network is never translated, bridged or routed."""
    server_class = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    guests = {"full": host.attach_guest("full"), "out": host.attach_guest("out", "--mode", "outbound"),
              "second": host.attach_guest("second")}
    for target in ("full", "second"):
        with server_class(guests[target], 80, name=target):
            for source, guest in guests.items():
                if source != target:
                    assert greeting(guest, protocol, guests[target].ip_address, 80) == (target, guest.ip_address), \
                        f"{source} → {target}"


@protocols
def test_the_host_reaches_its_guests_from_the_gateways_address(host, protocol, bridge_nf):
    guest = host.attach_guest("g")
    with (servers.TcpServer if protocol == "tcp" else servers.UdpServer)(guest, 80, name="guest"):
        assert greeting(host, protocol, guest.ip_address, 80) == ("guest", "10.88.0.1")


def test_the_gateway_answers_ping(host, bridge_nf):
    for options in ([], ["--mode", "outbound"]):
        guest = host.attach_guest(f"g{len(options)}", *options)
        assert guest.ping(guest.gateway)


@protocols
def test_services_of_the_host_are_closed_to_guests(host, protocol, bridge_nf):
    guest = host.attach_guest("g")
    with (servers.TcpServer if protocol == "tcp" else servers.UdpServer)(host, 9999, name="host") as server:
        for address in ("10.88.0.1", topology.HOST):
            assert servers.unreachable(guest, protocol, address, 9999), f"reached at {address}"
        assert server.clients == []


def test_translation_does_not_change_source_ports_without_need(host, internet):
    """Endpoint-independent enough for games and VoIP: a free source port is kept."""
    guest = host.attach_guest("g")
    with guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 45678))
        sock.settimeout(3)
        sock.sendto(b"x", (topology.INTERNET, 7))
        assert sock.recv(100).split()[2] == b"45678"


@pytest.mark.parametrize("family,address,kind", [
    (socket.AF_INET, topology.INTERNET, 8), (socket.AF_INET6, topology.INTERNET6, 128)], ids=["icmp", "icmpv6"])
def test_pings_numbered_alike_are_numbered_apart(host, world, family, address, kind):
    """Each guest of `moat run` is alone in its process namespace, so all their pings have one identifier: kept outside,
    two that begin at once would take each other's place."""
    host.moat("net", "create", "six", "--ipv6")
    guests = [host.attach_guest(f"g{i}", network="six") for i in range(3)]
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    with in_netns(world.outside.net_path, socket.socket, family, socket.SOCK_RAW, protocol) as listener:
        for guest in guests:
            guest.run("ping", "-n", "-c", "1", "-W", "2", "-e", "4242", address)
        listener.settimeout(0.2)
        seen = []
        with contextlib.suppress(TimeoutError):
            while True:
                packet = listener.recv(2048)
                header = packet[20:] if family == socket.AF_INET else packet
                if header[0] == kind:
                    seen.append(struct.unpack_from("!H", header, 4)[0])
    assert len(set(seen)) == len(guests) and 4242 not in seen, seen


def test_two_guests_with_the_same_source_port(host, internet):
    one, two = host.attach_guest("one"), host.attach_guest("two")
    with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, two.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        for sock, text in ((a, b"from-one"), (b, b"from-two")):
            sock.bind(("", 45679))
            sock.settimeout(3)
            sock.connect((topology.INTERNET, 7))
            sock.send(text)
        assert a.recv(100).endswith(b"from-one") and b.recv(100).endswith(b"from-two")


def test_private_addresses_never_leave_untranslated(host, world, internet):
    """A packet of a flow that nobody knows (a stray RST, say) must not show a guest's address outside."""
    world.router.nft("table ip watch { counter leaked { } chain c { type filter hook prerouting priority -300; "
                     "iifname \"lan0\" ip saddr 10.88.0.0/16 counter name leaked; } }")
    try:
        guest = host.attach_guest("g")
        with guest.inside(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            rst = bytes.fromhex("9c40000700000001000000005014000000000000")
            for _ in range(5):
                raw.sendto(rst, (topology.INTERNET, 0))
        assert guest.ping(topology.INTERNET)
        with servers.connect(guest, topology.INTERNET, 7) as sock:
            servers.read_line(sock)
        out = world.router.run("nft", "list", "counter", "ip", "watch", "leaked")
        assert "packets 0" in out, f"a guest's address was seen on the lan: {out}"
    finally:
        world.router.nft("delete table ip watch")


def test_beside_a_foreign_firewall_that_was_there_before(machine, internet):
    """An admin's ruleset is neither changed nor needed."""
    machine.nft("table inet admin { chain in { type filter hook input priority 0; policy accept; tcp dport 22 accept; } }")
    try:
        before = machine.run("nft", "list", "table", "inet", "admin")
        machine.start()
        guest = machine.attach_guest("g")
        assert guest.ping(topology.INTERNET)
        assert machine.run("nft", "list", "table", "inet", "admin") == before
    finally:
        machine.nft("delete table inet admin")


@pytest.mark.parametrize("what", ["flush ruleset", "bridge deleted", "address removed", "forwarding off"])
def test_what_others_break_is_repaired(host, internet, what):
    """Within a second, without anybody asking."""
    guest = host.attach_guest("g", "-p", "8080:80")
    if what == "flush ruleset":
        host.run("nft", "flush", "ruleset", check=False)
    elif what == "bridge deleted":
        host.ip("link", "del", "moat0")
    elif what == "address removed":
        host.ip("address", "del", "10.88.0.1/16", "dev", "moat0")
    else:
        host.sysctl("ipv4/ip_forward", 0)
    with servers.TcpServer(guest, 80, name="guest"):
        wait_for(lambda: guest.ping(topology.INTERNET, timeout=0.2), 2, f"the way out after: {what}")
        wait_for(lambda: not servers.unreachable(host, "tcp", topology.HOST, 8080, 0.2), 2, f"the published port after: {what}")
