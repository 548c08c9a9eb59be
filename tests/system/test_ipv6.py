# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks with IPv6, beside IPv4 and alone, for guests with a namespace."""

import ipaddress
import json
import os
import socket
import struct

import pytest

import dns
import frames
import servers
import test_hostile
import topology
from wait import stays, wait_for

BOTH, ALONE = ["--ipv6"], ["--ipv6", "--ipv4=false"]


@pytest.fixture(params=[BOTH, ALONE], ids=["dual", "ipv6-only"])
def network(host, request):
    host.moat("net", "create", "six", *request.param)
    return host.call("network.get", name="six")


@pytest.fixture(params=["full", "outbound"])
def mode(request):
    return request.param


def join(host, name, *options):
    return host.attach_guest(name, *options, network="six")


def ip6(guest):
    return guest.endpoint()["ip6"]


# The network

def test_our_links_obey_no_router_and_send_no_redirects(host):
    """Of the bridge and of routed ports: what comes in by a bridged port comes in by the bridge to the host."""
    host.moat("net", "create", "six", "--ipv6")
    guests = [join(host, "bridged"), join(host, "routed", "--deny", "192.0.2.1")]
    for link in (host.bridge_of("six"), guests[1].endpoint()["host_interface"]):
        assert host.sysctl(f"ipv6/conf/{link}/accept_ra") == "0", link
        assert host.sysctl(f"ipv4/conf/{link}/send_redirects") == "0", link
    before = host.run("ip", "-6", "route", "show")
    for guest in guests:
        evil = test_hostile.Party(guest)
        # A router for an hour, with a prefix that is on the link and for autonomous addresses.
        prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 3600, 3600, 0) + frames.ip6("2001:db8:bad::")
        for source in (evil.ip6, frames.link_local(evil.mac)):
            advert = frames.icmp6(source, "ff02::1", 134, struct.pack("!BBHII", 64, 0, 3600, 0, 0) + prefix)
            frames.send(guest, "eth0", frames.frame(evil.mac, "33:33:00:00:00:01", frames.ETH_IP6, advert))
    stays(lambda: host.run("ip", "-6", "route", "show") == before, 0.3, "the host's routes to stay")


def test_a_unique_local_prefix(host):
    """RFC 4193: of this host, of this network, the same whenever it is made."""
    host.moat("net", "create", "six", "--ipv6")
    host.moat("net", "create", "seven", "--ipv6")
    first = host.call("network.get", name="six")
    prefix = ipaddress.ip_network(first["subnet6"])
    assert prefix.prefixlen == 64 and prefix.subnet_of(ipaddress.ip_network("fd00::/8"))
    assert ipaddress.ip_address(first["gateway6"]) == prefix[1]
    other = ipaddress.ip_network(host.call("network.get", name="seven")["subnet6"])
    assert other != prefix and other.network_address.packed[:6] == prefix.network_address.packed[:6]
    host.moat("net", "rm", "six")
    host.moat("net", "create", "six", "--ipv6")
    assert host.call("network.get", name="six")["subnet6"] == first["subnet6"]


def test_a_prefix_of_ones_own(host):
    host.moat("net", "create", "six", "--subnet6", "2001:db8:1234::/64", "--gateway6", "2001:db8:1234::fe")
    guest = join(host, "g", )
    assert ip6(guest).startswith("2001:db8:1234::")
    assert guest.ping("2001:db8:1234::fe") and guest.ping(topology.INTERNET6)


def test_ipv6_alone_has_no_ipv4(host):
    network = json.loads(host.moat("net", "create", "six", *ALONE, "--json").out)
    assert network["subnet"] is None and network["gateway"] is None and network["subnet6"]
    guest = join(host, "g")
    assert guest.endpoint()["ip"] is None and guest.endpoint()["prefix"] is None
    assert guest.endpoint()["gateway"] == network["gateway6"]
    assert all(":" in a for a in guest.addresses("eth0"))
    assert not guest.ip_json("-4", "route", "show")
    assert not [a for a in host.addresses(network["bridge"]) if "." in a]
    assert host.moat("net", "create", "six", *ALONE, "--ignore").line == "six"
    host.refused("net", "create", "six", "--ipv6", "--ignore", says="ipv4")


@pytest.mark.parametrize("options,code,says", [
    (["--ipv4=false"], 1, "IPv6"),
    (["--ipv4=false", "--ipv6", "--subnet", "10.1.0.0/24"], 1, "subnet"),
    (["--ipv4=maybe", "--ipv6"], 2, "true or false"),
    (["--ipv6", "--mtu", "1200"], 1, "1280"),
    (["--subnet6", "fe80::/64"], 1, "fe80"),
    (["--subnet6", "2001:db8:77::/64"], 1, "eth0"),
    (["--subnet6", "fd00::1/64"], 1, "host bits"),
    (["--gateway6", "fd00::1"], 1, "subnet6"),
])
def test_refusals(host, options, code, says):
    before = host.kernel()
    outcome = host.moat("net", "create", "six", *options, check=False)
    assert outcome.code in (code, 2) and says in outcome.err, outcome
    assert before.differences(host.kernel()) == []
    assert [n["name"] for n in host.call("network.list")] == ["default"]


def test_a_kernel_without_ipv6(machine, internet):
    machine.start(env={"MOAT_FAULT": "link.ipv6"})
    machine.refused("net", "create", "six", "--ipv6", says="no IPv6")
    guest = machine.attach_guest("g")
    assert guest.ping(topology.INTERNET)


# Guests

def test_addresses_and_routes(host, network, mode):
    """There at once: no address is tentative, nothing comes by autoconfiguration."""
    guest = join(host, "g", "--mode", mode)
    addresses = [a for link in guest.ip_json("-6", "address", "show", "dev", "eth0") for a in link["addr_info"]]
    assert not [a for a in addresses if a.get("tentative") or a.get("dynamic")]
    assert sorted(a["scope"] for a in addresses) == ["global", "link"]
    route = guest.ip_json("-6", "route", "show", "default")
    assert [(r["gateway"], r["dev"]) for r in route] == [("fe80::1", "eth0")]
    assert guest.ping(network["gateway6"]) and guest.ping("fe80::1%eth0")
    assert guest.ping(topology.INTERNET6)


def test_the_outside_sees_the_host(host, network, outside, mode):
    guest = join(host, "g", "--mode", mode)
    with servers.TcpServer(outside, 77, topology.INTERNET6, name="six") as server:
        with servers.connect(guest, topology.INTERNET6, 77) as sock:
            servers.read_line(sock)
        assert server.clients[0][0] == topology.HOST6


@pytest.mark.parametrize("modes", [("full", "full"), ("full", "outbound"), ("outbound", "full")])
def test_neighbours(host, network, modes, bridge_nf):
    """Both ways where both are open; nobody opens a connection to an outbound guest."""
    one, two = (join(host, name, "--mode", kind) for name, kind in zip(("one", "two"), modes))
    assert two.ping(ip6(one)) == (modes[0] == "full")
    assert one.ping(ip6(two)) == (modes[1] == "full")


def test_networks_never_reach_each_other(host, network):
    host.moat("net", "create", "other", "--ipv6")
    one, two = join(host, "one"), host.attach_guest("two", network="other")
    assert not one.ping(two.endpoint()["ip6"], timeout=0.3)
    assert not one.ping(host.call("network.get", name="other")["gateway6"], timeout=0.3)


def test_isolated(host):
    host.moat("net", "create", "six", "--ipv6", "--isolated")
    one, two = join(host, "one"), join(host, "two")
    assert one.ping(topology.INTERNET6) and not one.ping(ip6(two), timeout=0.3)


def test_internal(host):
    host.moat("net", "create", "six", "--ipv6", "--internal")
    one, two = join(host, "one"), join(host, "two")
    assert one.ping(ip6(two)) and not one.ping(topology.INTERNET6, timeout=0.3)
    assert not one.ip_json("-6", "route", "show", "default")


def test_the_hosts_services_are_closed(host, network):
    guest = join(host, "g")
    with servers.TcpServer(host, 9999, "::", name="host"):
        for address in (network["gateway6"], topology.HOST6):
            assert servers.unreachable(guest, "tcp", address, 9999)


def test_an_address_of_ones_choice(host, network):
    wanted = str(ipaddress.ip_network(network["subnet6"])[0x1234])
    guest = host.attach_guest("g", network=f"six,ip6={wanted}")
    assert ip6(guest) == wanted
    host.refused("attach", "h", "--network", f"six,ip6={wanted}", "--pid", host.guest_space().pid, says=["g", wanted])
    host.refused("attach", "h", "--network", f"six,ip6={network['gateway6']}", "--pid", host.guest_space().pid)
    host.refused("attach", "h", "--network", "six,ip6=2001:db8::1", "--pid", host.guest_space().pid)
    host.refused("attach", "h", "--network", "default,ip6=fd00::1", "--pid", host.guest_space().pid, says="no IPv6")


def test_a_network_without_ipv6_has_none(host, network):
    """Nothing inside, no link-local address either; and nothing on its bridge."""
    guest = host.attach_guest("g")
    assert not guest.ip_json("-6", "address", "show", "dev", "eth0")[0:1] or \
        not guest.ip_json("-6", "address", "show", "dev", "eth0")[0]["addr_info"]
    assert not [a for a in host.addresses("moat0") if ":" in a]


# Names

def test_names(host, network):
    web = host.attach_guest("web", network="six,alias=www")
    guest = join(host, "g")
    server = network["gateway6"]
    for name in ("web", "web.moat.internal", "web.six.moat.internal", "www"):
        answer = dns.ask(guest, server, name, "AAAA")
        assert answer.data == [ip6(web)], name
    answer = dns.ask(guest, server, "web", "A")
    assert answer.rcode == "NOERROR" and answer.data == ([web.endpoint()["ip"]] if network["subnet"] else [])
    reverse = ipaddress.ip_address(ip6(web)).reverse_pointer
    assert dns.ask(guest, server, reverse, "PTR").data == ["web.moat.internal"]


def entries(host, guest):
    """How many connections of the guest the host keeps track of over IPv6."""
    return len(host.run("conntrack", "-L", "-f", "ipv6", "--orig-src", ip6(guest)).splitlines())


def test_a_guest_that_leaves_takes_its_own_connections_only(host, network, outside):
    """The other one mostly listens: were its entry gone, the host would answer the next segment with a reset."""
    stays_there, leaves = join(host, "stays"), join(host, "leaves")
    with servers.TcpServer(outside, 77, topology.INTERNET6, name="six") as server, \
            servers.connect(leaves, topology.INTERNET6, 77) as other, servers.connect(stays_there, topology.INTERNET6, 77) as stream:
        assert servers.read_line(other).startswith("six") and servers.read_line(stream).startswith("six")
        assert entries(host, stays_there) == 1 and entries(host, leaves) == 1
        host.moat("detach", "leaves")
        wait_for(lambda: entries(host, leaves) == 0, 2)
        assert entries(host, stays_there) == 1
        server.to_last(b"pushed\n")
        assert servers.read_line(stream) == "pushed"


# Published ports

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_published_to_the_outside(host, lan, network, protocol, bridge_nf):
    """The client's address is kept."""
    guest = join(host, "g", "-p", f"8080:80/{protocol}")
    server = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    with server(guest, 80, "::", name="guest") as there:
        assert servers.greeting(lan, protocol, topology.HOST6, 8080)
        assert {client[0] for client in there.clients} == {topology.LAN6}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", [topology.HOST6, "::1"])
def test_published_to_the_host_itself(host, network, protocol, address, bridge_nf):
    guest = join(host, "g", "-p", f"8080:80/{protocol}")
    server = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    with server(guest, 80, "::", name="six"), \
            (server(guest, 80, "0.0.0.0", name="four") if network["subnet"] else server(guest, 81, "::", name="none")):
        assert servers.greeting(host, protocol, address, 8080)


def test_published_to_neighbours_and_itself(host, network, bridge_nf):
    guest, peer = join(host, "g", "-p", "8080:80"), join(host, "peer")
    with servers.TcpServer(guest, 80, "::", name="guest"):
        for client in (guest, peer):
            assert servers.greeting(client, "tcp", topology.HOST6, 8080)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", topology.HOST])
def test_published_to_ipv4_clients(host, lan, network, protocol, address):
    """A guest that has IPv6 alone is reached by IPv4 clients too."""
    guest = join(host, "g", "-p", f"8080:80/{protocol}")
    server = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    client = host if address == "127.0.0.1" else lan
    with server(guest, 80, "0.0.0.0" if network["subnet"] else "::", name="guest"):
        assert servers.greeting(client, protocol, address, 8080)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_published_to_guests_of_the_other_family(host, protocol, bridge_nf):
    """By the relay: an IPv4 guest reaches what an IPv6-only guest has published, and the other way round.

    On every address of the host, as with a guest of the same family: other networks' gateways too.
    """
    host.moat("net", "create", "six", *ALONE)
    host.moat("net", "create", "third", *BOTH)
    host.moat("net", "create", "closed", "--internal")
    six, four = join(host, "six", "-p", f"8080:80/{protocol}"), host.attach_guest("four", "-p", f"8081:80/{protocol}")
    strict = host.attach_guest("strict", "--deny", "@private")
    third = host.attach_guest("third", network="third")
    closed = host.attach_guest("closed", network="closed")
    server = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    with server(six, 80, "::", name="six"), server(four, 80, "0.0.0.0", name="four"):
        for address in (topology.HOST, four.gateway):
            assert servers.greeting(four, protocol, address, 8080)[0] == "six", address
        for address in (topology.HOST6, six.gateway):
            assert servers.greeting(six, protocol, address, 8081)[0] == "four", address
        for address, port, name in ((four.gateway, 8080, "six"), (six.gateway, 8081, "four")):
            assert servers.greeting(third, protocol, address, port)[0] == name, address
        assert servers.unreachable(third, protocol, four.gateway, 8079), "another network's gateway is open"
        for address in (topology.HOST, four.gateway):
            assert servers.unreachable(strict, protocol, address, 8080), "a policy was passed by"
            assert servers.unreachable(closed, protocol, address, 8080), "an internal network reached out"
        host.moat("localhost", "four", "on")
        assert servers.greeting(four, protocol, "127.0.0.1", 8080)[0] == "six"
        host.restart()
        assert servers.greeting(four, protocol, topology.HOST, 8080)[0] == "six"
        host.moat("port", "rm", "six", f"8080:80/{protocol}")
        assert servers.unreachable(four, protocol, topology.HOST, 8080)


def test_an_ipv4_address_leads_to_no_ipv6_guest(host):
    host.moat("net", "create", "six", *ALONE)
    host.refused("attach", "g", "--network", "six", "--pid", host.guest_space().pid, "-p", f"{topology.HOST}:8080:80", says="IPv6 only")
    join(host, "g")
    host.refused("port", "add", "g", "127.0.0.1:8080:80", says="IPv6 only")
    host.moat("port", "add", "g", f"[{topology.HOST6}]:8080:80")


def test_a_namespace_where_ipv6_is_switched_off(host, network, mode):
    """As other runtimes make them: it is switched on for our link, and for nothing else."""
    space = host.guest_space()
    for name in ("all", "default"):
        space.sysctl(f"ipv6/conf/{name}/disable_ipv6", 1)
    space.ip("link", "add", "own0", "type", "bridge")
    host.moat("attach", "g", "--network", "six", "--pid", space.pid, "--mode", mode)
    assert space.sysctl("ipv6/conf/eth0/disable_ipv6") == "0" and space.sysctl("ipv6/conf/own0/disable_ipv6") == "1"
    assert space.ping(network["gateway6"])
    peer = join(host, "peer")
    address = host.call("guest.get", name="g")["endpoints"][0]["ip6"]
    assert (mode == "outbound") != peer.ping(address, timeout=0.5)
    other = host.call("network.create", name="two", ipv6=True)
    host.moat("attach", "g", "--network", "two")
    assert space.ping(other["gateway6"])


# The host

def test_forwarding_is_given_back(host):
    before = host.sysctl("ipv6/conf/all/forwarding")
    assert before == "0"
    host.moat("net", "create", "six", "--ipv6")
    host.moat("net", "create", "seven", "--ipv6")
    assert host.sysctl("ipv6/conf/all/forwarding") == "1"
    host.moat("net", "rm", "six")
    assert host.sysctl("ipv6/conf/all/forwarding") == "1"
    host.moat("net", "rm", "seven")
    assert host.sysctl("ipv6/conf/all/forwarding") == "0"


@pytest.mark.parametrize("value,meanwhile", [(1, "2"), (0, "0"), (2, "2")])
def test_advertisements_go_on_being_accepted(host, value, meanwhile):
    """A router takes no advertisements unless told to: the host would lose the way out that it has from one."""
    host.sysctl("ipv6/conf/eth0/accept_ra", value)
    try:
        host.moat("net", "create", "six", "--ipv6")
        assert host.sysctl("ipv6/conf/eth0/accept_ra") == meanwhile
        host.restart(crash=True)
        assert host.sysctl("ipv6/conf/eth0/accept_ra") == meanwhile
        host.moat("net", "rm", "six")
        assert host.sysctl("ipv6/conf/eth0/accept_ra") == str(value)
    finally:
        host.sysctl("ipv6/conf/eth0/accept_ra", 1)


def test_everything_is_there_after_a_reboot(host, network):
    before = host.call("network.get", name="six")
    host.reboot()
    assert host.call("network.get", name="six") == before
    guest = join(host, "g")
    assert guest.ping(topology.INTERNET6)


# Addresses that change hands

@pytest.mark.parametrize("modes", [("full", "full"), ("full", "outbound"), ("outbound", "full")])
def test_a_successor_is_reached_at_once(host, modes):
    """The neighbour has the former MAC in its cache; the successor has another one."""
    host.moat("net", "create", "six", "--ipv6")
    peer = join(host, "peer")
    networks = {"name": "six"}
    for number, kind in enumerate(modes):
        space = host.guest_space()
        mac = {"mac": f"02:00:00:00:00:0{number + 1}"} if modes == ("full", "full") else {}
        info = host.call("guest.attach", name="g", kind="netns", pid=space.pid, mode=kind, networks=[{**networks, **mac}])
        networks = {"name": "six", "ip": info["endpoints"][0]["ip"], "ip6": info["endpoints"][0]["ip6"]}
        from host import Guest
        guest = Guest(host, "g", space=space)
        for address in (networks["ip"], networks["ip6"]):
            if kind == "full":
                assert peer.ping(address, timeout=1)
            else:
                assert guest.ping(peer.endpoint()["ip" if "." in address else "ip6"], timeout=1)
        host.moat("detach", "g")


@pytest.mark.parametrize("mode", ["full", "outbound"])
def test_the_first_packet_after_an_attach_arrives(host, mode):
    """What the kernel does behind its answer (forwarding of the port, groups for neighbour solicitations) is waited for."""
    host.moat("net", "create", "six", "--ipv6")
    for i in range(6):
        spaces = [host.guest_space(), host.guest_space()]
        old = host.call("guest.attach", name="old", kind="netns", pid=spaces[0].pid, networks=[{"name": "six"}])
        host.call("guest.attach", name="new", kind="netns", pid=spaces[1].pid, mode=mode, networks=[{"name": "six"}])
        for family in ("ip6", "ip"):
            assert spaces[1].ping(old["endpoints"][0][family], timeout=0.9), f"round {i}: the first {family} echo was lost"
        for name, space in zip(("old", "new"), spaces):
            host.moat("detach", name)
            space.close()


def test_macs_are_unique(host):
    host.moat("net", "create", "six", "--ipv6")
    host.attach_guest("g", network="six,mac=02:00:00:00:00:aa")
    pid = host.guest_space().pid
    host.refused("attach", "h", "--network", "default,mac=02:00:00:00:00:aa", "--pid", pid, says="\"g\"")
    uplink = host.links()["eth0"]["address"]
    host.refused("attach", "h", "--network", f"default,mac={uplink}", "--pid", pid, says="eth0")
    bridge = host.links()["moat0"]["address"]
    host.refused("attach", "h", "--network", f"six,mac={bridge}", "--pid", pid, says="moat0")
    host.refused("attach", "h", "--network", "default,mac=02:00:00:00:00:ab", "--network", "six,mac=02:00:00:00:00:ab",
                 "--pid", pid, code=2, says="twice")
