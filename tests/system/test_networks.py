# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks: create, look at, remove; what they are chosen to be, and what they let through."""

import ipaddress
import re

import pytest

import dns
import servers
import topology
import trace
from wait import wait_for

NETWORK_MEMBERS = {"id", "name", "bridge", "subnet", "gateway", "ip_range", "subnet6", "gateway6", "internal", "isolated",
                   "host_access", "mtu", "dns", "dns_servers", "labels", "created", "guests"}


def subnet_of(host, name):
    return ipaddress.ip_network(host.call("network.get", name=name)["subnet"])


def create(host, name, **settings):
    return host.call("network.create", name=name, **settings)


def test_name_servers_are_shown(host):
    """--no-dns and --dns are two facts: whether the gateway answers, and whom it asks."""
    host.moat("net", "create", "own", "--dns", "192.0.2.53", "--dns", "2001:db8::53")
    host.moat("net", "create", "mute", "--no-dns")
    shown = {network["name"]: (network["dns"], network["dns_servers"]) for network in host.call("network.list")}
    assert shown == {"default": (True, []), "own": (True, ["192.0.2.53", "2001:db8::53"]), "mute": (False, [])}
    host.restart()
    assert host.moat("net", "inspect", "own").json[0]["dns_servers"] == ["192.0.2.53", "2001:db8::53"]


# The default network

def test_default_network_exists_from_the_first_start(host):
    network = host.moat("net", "inspect", "default").json[0]
    assert (network["bridge"], network["subnet"], network["gateway"]) == ("moat0", "10.88.0.0/16", "10.88.0.1")
    bridge = host.links()["moat0"]
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    assert "UP" in bridge["flags"]
    assert host.addresses("moat0") == ["10.88.0.1"]


def test_default_network_gives_way_to_an_address_of_the_host(machine, internet):
    machine.ip("address", "add", "10.88.7.1/24", "dev", "lo")
    try:
        machine.start()
        subnet = subnet_of(machine, "default")
        assert not subnet.overlaps(ipaddress.ip_network("10.88.7.0/24")), f"default took {subnet}, which the host uses"
        assert subnet.prefixlen == 16 and subnet.is_private
        assert machine.call("network.get", name="default")["bridge"] == "moat0"
    finally:
        machine.ip("address", "del", "10.88.7.1/24", "dev", "lo")


def test_default_network_gives_way_to_a_route_of_another_table(machine, internet):
    machine.ip("route", "add", "10.88.128.0/24", "via", topology.ROUTER, "table", "4321")
    try:
        machine.start()
        assert not subnet_of(machine, "default").overlaps(ipaddress.ip_network("10.88.128.0/24"))
    finally:
        machine.ip("route", "flush", "table", "4321")


def test_default_network_gives_way_to_the_hosts_resolver(machine, internet):
    machine.write("/etc/resolv.conf", "nameserver 10.88.0.53\n")
    try:
        machine.start()
        assert ipaddress.ip_address("10.88.0.53") not in subnet_of(machine, "default")
    finally:
        machine.write("/etc/resolv.conf", f"nameserver {topology.INTERNET_DNS}\nsearch corp.example\n")


def test_default_network_can_not_be_removed(host):
    host.refused("net", "rm", "default", says="default")
    assert host.moat("net", "ls", "-q").line == "default"


# Creating

def test_create_prints_the_name_and_makes_the_bridge(host):
    assert host.moat("net", "create", "blue").out == "blue\n"
    network = host.moat("net", "inspect", "blue").json[0]
    assert set(network) == NETWORK_MEMBERS
    assert network["name"] == "blue" and network["guests"] == [] and network["labels"] == {}
    assert network["bridge"] == "moat1" and network["dns"] is True and network["internal"] is False
    assert network["ip_range"] is None and network["subnet6"] is None and network["gateway6"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", network["created"])
    subnet = ipaddress.ip_network(network["subnet"])
    assert network["gateway"] == str(subnet[1])
    assert host.addresses("moat1") == [network["gateway"]]
    assert host.links()["moat1"].get("ifalias", "").startswith("moat:")


def test_create_as_json_is_the_rpc_result(host):
    shown = host.moat("net", "create", "blue", "--json").json
    assert shown == host.call("network.get", name="blue")
    assert host.moat("--json", "net", "inspect", "blue").json == [shown]


def test_chosen_subnets_are_private_and_never_overlap(host):
    for i in range(12):
        create(host, f"n{i}")
    subnets = [ipaddress.ip_network(n["subnet"]) for n in host.call("network.list")]
    bridges = [n["bridge"] for n in host.call("network.list")]
    assert len(subnets) == 13 and len(set(bridges)) == 13
    for i, one in enumerate(subnets):
        assert one.is_private
        assert not any(one.overlaps(other) for other in subnets[:i])


def test_chosen_subnet_avoids_addresses_and_routes_of_every_table(host):
    taken = create(host, "probe")["subnet"]
    host.moat("net", "rm", "probe")
    host.ip("route", "add", "blackhole", taken, "table", "77")
    try:
        second = create(host, "one")["subnet"]
        assert not ipaddress.ip_network(second).overlaps(ipaddress.ip_network(taken))
        address = ipaddress.ip_network(create(host, "probe")["subnet"])[9]
        host.moat("net", "rm", "probe")
        host.ip("address", "add", f"{address}/32", "dev", "lo")
        try:
            assert address not in ipaddress.ip_network(create(host, "two")["subnet"])
        finally:
            host.ip("address", "del", f"{address}/32", "dev", "lo")
    finally:
        host.ip("route", "flush", "table", "77")


def test_no_free_subnet_is_said(host):
    for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"):
        host.ip("route", "add", "blackhole", block, "table", "78")
    try:
        error = host.error("network.create", name="blue")
        assert (error.code, error.reason) == (-32000, "no_free_subnet")
        outcome = host.refused("net", "create", "blue")
        assert "--subnet" in outcome.err, f"does not say what to do:\n{outcome}"
    finally:
        host.ip("route", "flush", "table", "78")


@pytest.mark.parametrize("subnet", ["11.0.0.0/8", "172.20.0.0/14", "10.9.0.0/16", "10.9.8.0/22", "10.9.8.0/24",
                                    "10.9.8.128/25", "10.9.8.16/28", "10.9.8.16/29", "10.9.8.4/30"])
def test_any_prefix_from_8_to_30(host, subnet):
    network = create(host, "blue", subnet=subnet)
    net = ipaddress.ip_network(subnet)
    assert network["subnet"] == subnet and network["gateway"] == str(net[1])
    guest = host.attach_guest("g", network="blue")
    endpoint = guest.endpoint("blue")
    assert ipaddress.ip_address(endpoint["ip"]) in net and endpoint["prefix"] == net.prefixlen
    assert endpoint["ip"] not in (str(net[0]), str(net[1]), str(net[-1]))
    assert guest.ping(network["gateway"])
    assert guest.ping(topology.INTERNET)


@pytest.mark.parametrize("subnet", ["10.0.0.0/7", "10.9.8.4/31", "10.9.8.4/32", "0.0.0.0/0", "127.0.0.0/8", "224.0.0.0/8",
                                    "169.254.0.0/16", "240.0.0.0/8", "0.0.0.0/8"])
def test_unusable_subnets_are_refused(host, subnet):
    error = host.error("network.create", name="blue", subnet=subnet)
    assert error.reason == "subnet_invalid" or error.field == "subnet", str(error)
    host.refused("net", "create", "blue", "--subnet", subnet, says=subnet)
    assert [n["name"] for n in host.call("network.list")] == ["default"]


@pytest.mark.parametrize("subnet", ["10.88.0.0/16", "10.88.4.0/24", "10.0.0.0/8"])
def test_overlap_with_a_network_names_it(host, subnet):
    error = host.error("network.create", name="blue", subnet=subnet)
    assert error.reason == "subnet_overlap" and "default" in error.message
    host.refused("net", "create", "blue", "--subnet", subnet, says=["default", "10.88.0.0/16"])


def test_overlap_with_a_link_names_it(host):
    host.refused("net", "create", "blue", "--subnet", "192.168.77.128/25", says="eth0")
    assert host.error("network.create", name="blue", subnet="192.168.0.0/16").reason == "subnet_overlap"


def test_overlap_with_a_route_names_it(host):
    host.ip("route", "add", "10.200.0.0/16", "via", topology.ROUTER, "table", "99")
    try:
        host.refused("net", "create", "blue", "--subnet", "10.200.3.0/24", says="10.200.0.0/16")
    finally:
        host.ip("route", "flush", "table", "99")


def test_overlap_with_the_hosts_resolver_is_refused(host):
    error = host.error("network.create", name="blue", subnet="198.51.100.0/26")
    assert error.reason == "subnet_overlap"
    assert topology.INTERNET_DNS in error.message or "resolver" in error.message


def test_a_default_route_is_no_overlap(host):
    create(host, "blue", subnet="10.99.0.0/24")


def test_gateway_of_choice(host):
    network = create(host, "blue", subnet="10.9.0.0/24", gateway="10.9.0.254")
    assert network["gateway"] == "10.9.0.254" and host.addresses(network["bridge"]) == ["10.9.0.254"]
    guest = host.attach_guest("g", network="blue")
    assert guest.gateway == "10.9.0.254" and guest.ip_address == "10.9.0.1"
    assert guest.ping(topology.INTERNET)


@pytest.mark.parametrize("gateway", ["10.9.1.1", "10.9.0.0", "10.9.0.255", "10.88.0.1"])
def test_gateway_must_be_an_address_of_the_subnet(host, gateway):
    error = host.error("network.create", name="blue", subnet="10.9.0.0/24", gateway=gateway)
    assert error.reason in ("address_outside", "subnet_invalid") or error.field == "gateway", str(error)
    host.refused("net", "create", "blue", "--subnet", "10.9.0.0/24", "--gateway", gateway, says=gateway)
    assert "blue" not in host.moat("net", "ls", "-q").out


def test_ip_range_bounds_what_is_given(host):
    network = create(host, "blue", subnet="10.9.0.0/24", ip_range="10.9.0.64/30")
    assert network["ip_range"] == "10.9.0.64/30"
    given = {host.attach_guest(f"g{i}", network="blue").ip_address for i in range(4)}
    assert given == {"10.9.0.64", "10.9.0.65", "10.9.0.66", "10.9.0.67"}
    full = host.guest_space()
    error = host.error("guest.attach", name="g4", kind="netns", pid=full.pid, networks=[{"name": "blue"}])
    assert error.reason == "no_free_address"
    # A wish may lie anywhere in the subnet.
    result = host.call("guest.attach", name="g4", kind="netns", pid=full.pid, networks=[{"name": "blue", "ip": "10.9.0.9"}])
    assert result["endpoints"][0]["ip"] == "10.9.0.9"


def test_ip_range_must_lie_in_the_subnet(host):
    error = host.error("network.create", name="blue", subnet="10.9.0.0/24", ip_range="10.9.1.0/30")
    assert error.reason in ("address_outside", "subnet_invalid") or error.field == "ip_range", str(error)
    host.refused("net", "create", "blue", "--subnet", "10.9.0.0/24", "--ip-range", "10.0.0.0/8")


def test_labels(host):
    host.moat("net", "create", "blue", "--label", "team=red", "--label", "empty=", "--label", "a=b=c")
    assert host.call("network.get", name="blue")["labels"] == {"team": "red", "empty": "", "a": "b=c"}


def test_bridge_of_choice(host):
    host.moat("net", "create", "blue", "--bridge", "br-blue")
    assert host.links()["br-blue"]["linkinfo"]["info_kind"] == "bridge"
    host.moat("net", "rm", "blue")
    assert "br-blue" not in host.links()


def test_bridge_name_of_somebody_else_is_refused(host):
    before = host.kernel()
    error = host.error("network.create", name="blue", bridge="eth0")
    assert error.reason in ("in_use", "exists") and "eth0" in error.message
    assert host.error("network.create", name="blue", bridge="moat0").reason in ("exists", "in_use")
    trace.check_same(before, host.kernel(), "a refused bridge name changed the host")


def test_name_is_taken(host):
    create(host, "blue")
    error = host.error("network.create", name="blue")
    assert (error.code, error.reason) == (-32000, "exists")
    host.refused("net", "create", "blue", says=["blue", "exists"])


def test_ignore_is_content_with_the_same_settings(host):
    first = create(host, "blue", subnet="10.9.0.0/24", mtu=1300, labels={"a": "1"})
    options = ["--subnet", "10.9.0.0/24", "--mtu", "1300", "--label", "a=1", "--ignore"]
    assert host.moat("net", "create", "blue", *options).out == "blue\n"
    assert host.call("network.get", name="blue") == first
    # What was not asked for may be anything.
    assert host.moat("net", "create", "blue", "--ignore").out == "blue\n"


@pytest.mark.parametrize("option", [["--subnet", "10.10.0.0/24"], ["--internal"], ["--mtu", "1301"],
                                    ["--gateway", "10.9.0.9"], ["--no-dns"]])
def test_ignore_is_not_content_with_other_settings(host, option):
    create(host, "blue", subnet="10.9.0.0/24", mtu=1300)
    outcome = host.refused("net", "create", "blue", "--ignore", *option)
    assert "blue" in outcome.err
    assert host.error("network.create", name="blue", ignore=True, internal=True).reason == "exists"


# MTU

def test_mtu_follows_the_hosts_way_out(host):
    assert host.call("network.get", name="default")["mtu"] == 1500
    guest = host.attach_guest("g")
    host.ip("link", "set", "eth0", "mtu", "1400")
    try:
        wait_for(lambda: host.links()["moat0"]["mtu"] == 1400, 2, "the bridge to follow the uplink's MTU")
        assert host.call("network.get", name="default")["mtu"] == 1400
        assert create(host, "blue")["mtu"] == 1400
        later = host.attach_guest("later", network="blue")
        assert later.links()["eth0"]["mtu"] == 1400
        wait_for(lambda: guest.links()["eth0"]["mtu"] == 1400, 2, "the guest that was there to follow")
        assert guest.ping(topology.INTERNET, size=1372)
    finally:
        host.ip("link", "set", "eth0", "mtu", "1500")
    wait_for(lambda: host.links()["moat0"]["mtu"] == 1500, 2, "the bridge to follow the uplink's MTU back")
    wait_for(lambda: guest.links()["eth0"]["mtu"] == 1500, 2, "the guest to follow it back")


def test_mtu_changed_while_moatd_was_away(host):
    guest = host.attach_guest("g")
    host.stop()
    host.ip("link", "set", "eth0", "mtu", "1400")
    try:
        host.start()
        assert guest.links()["eth0"]["mtu"] == 1400
    finally:
        host.ip("link", "set", "eth0", "mtu", "1500")
    wait_for(lambda: guest.links()["eth0"]["mtu"] == 1500, 2, "the guest to follow it back")


def test_mtu_follows_a_routing_rule(host):
    """A VPN comes with its route in a table of its own first, and with the rule that leads there behind."""
    host.ip("link", "add", "vpn0", "mtu", "1420", "type", "veth", "peer", "name", "vpn1")
    try:
        for name in ("vpn0", "vpn1"):
            host.ip("link", "set", name, "up")
        host.ip("route", "add", "default", "dev", "vpn0", "table", "51820")
        host.ip("rule", "add", "not", "fwmark", "51820", "table", "51820")
        wait_for(lambda: host.call("network.get", name="default")["mtu"] == 1420, 2, "the MTU of the rule's way out")
        host.ip("rule", "del", "not", "fwmark", "51820", "table", "51820")
        wait_for(lambda: host.call("network.get", name="default")["mtu"] == 1500, 2, "the MTU without the rule")
    finally:
        host.run("ip", "rule", "del", "not", "fwmark", "51820", "table", "51820", check=False)
        host.ip("link", "del", "vpn0")


def test_mtu_of_a_route_counts(machine, internet):
    machine.ip("route", "replace", "default", "via", topology.ROUTER, "mtu", "1280")
    try:
        machine.start()
        assert machine.call("network.get", name="default")["mtu"] == 1280
    finally:
        machine.ip("route", "replace", "default", "via", topology.ROUTER)


def test_mtu_of_choice_stays(host):
    network = create(host, "blue", mtu=1312)
    assert network["mtu"] == 1312 and host.links()[network["bridge"]]["mtu"] == 1312
    guest = host.attach_guest("g", network="blue")
    assert guest.links()["eth0"]["mtu"] == 1312
    host.ip("link", "set", "eth0", "mtu", "1400")
    try:
        wait_for(lambda: host.links()["moat0"]["mtu"] == 1400, 2, "the default network to follow")
        assert host.links()[network["bridge"]]["mtu"] == 1312
    finally:
        host.ip("link", "set", "eth0", "mtu", "1500")


# Looking

def test_ls(host):
    create(host, "blue", subnet="10.9.0.0/24", internal=True)
    lines = host.moat("net", "ls").out.splitlines()
    assert lines[0].split()[0] == "NAME"
    row = next(line for line in lines if line.startswith("blue"))
    assert "10.9.0.0/24" in row and "moat1" in row
    assert sorted(host.moat("net", "ls", "-q").out.split()) == ["blue", "default"]
    assert host.moat("net", "ls", "--json").json == host.call("network.list")


def test_inspect_takes_several_names(host):
    create(host, "blue")
    assert [n["name"] for n in host.moat("net", "inspect", "blue", "default").json] == ["blue", "default"]
    host.refused("net", "inspect", "blue", "green", says="green")
    assert host.error("network.get", name="green").reason == "not_found"


def test_guests_are_listed(host):
    create(host, "blue")
    host.attach_guest("g1", network="blue")
    host.attach_guest("g0", network="blue")
    assert sorted(host.call("network.get", name="blue")["guests"]) == ["g0", "g1"]
    assert host.call("network.get", name="default")["guests"] == []


# Removing

def test_rm_removes_bridge_addresses_and_rules(host):
    before = host.kernel()
    create(host, "blue", subnet="10.9.0.0/24")
    create(host, "red")
    host.moat("net", "rm", "blue", "red")
    assert host.moat("net", "ls", "-q").out == "default\n"
    wait_for(lambda: not before.differences(host.kernel()), 2,
             lambda: "the host as before: " + "\n".join(before.differences(host.kernel())))


def test_rm_with_guests_is_refused_and_names_them(host):
    create(host, "blue")
    guest = host.attach_guest("worker", network="blue")
    host.refused("net", "rm", "blue", says=["worker", "--force"])
    assert host.error("network.remove", name="blue").reason == "in_use"
    assert guest.ping(topology.INTERNET), "a refused removal broke the guest"


def test_rm_force_detaches_the_guests(host):
    create(host, "blue")
    only = host.attach_guest("only", network="blue")
    both = host.attach_guest("both", network="default")
    host.moat("attach", "both", "--network", "blue")
    host.moat("net", "rm", "--force", "blue")
    assert host.moat("net", "ls", "-q").out == "default\n"
    names = host.guest_names()
    assert "both" in names
    assert [e["network"] for e in both.refresh().info["endpoints"]] == ["default"]
    wait_for(lambda: "eth0" not in only.links(), 2, "the link in the guest to be gone")
    wait_for(lambda: "eth1" not in both.links(), 2, "the second link in the guest to be gone")
    assert both.ping(topology.INTERNET)


def test_rm_of_what_is_not_there(host):
    host.refused("net", "rm", "nothing", says="nothing")
    assert host.error("network.remove", name="nothing").reason == "not_found"


def test_prune_removes_networks_without_guests_but_default(host):
    for name in ("blue", "green", "red"):
        create(host, name)
    host.attach_guest("g", network="green")
    outcome = host.moat("net", "prune", "--yes")
    assert "blue" in outcome.out and "red" in outcome.out and "green" not in outcome.out
    assert sorted(host.moat("net", "ls", "-q").out.split()) == ["default", "green"]
    assert host.moat("net", "prune", "--yes", "--json").json == []


def test_prune_asks_first(host):
    create(host, "blue")
    outcome = host.moat("net", "prune", input="n\n", check=False)
    assert "blue" in host.moat("net", "ls", "-q").out, f"pruned without leave:\n{outcome}"


def test_a_removed_networks_subnet_and_bridge_are_free_at_once(host):
    for _ in range(5):
        create(host, "blue", subnet="10.9.0.0/24", bridge="br-blue")
        host.moat("net", "rm", "blue")


# What networks let through

def test_internal_network_reaches_its_guests_and_gateway_only(host, outside, lan, bridge_nf):
    network = create(host, "inner", internal=True, subnet="10.9.0.0/24")
    one = host.attach_guest("one", network="inner")
    two = host.attach_guest("two", network="inner")
    assert one.ping("10.9.0.1"), "the gateway answers ping"
    assert one.ping(two.ip_address), "guests of the network reach one another"
    assert not [r for r in one.ip_json("route", "show") if r["dst"] == "default"], "no default route inside"
    # Even a guest that makes itself a default route gets nowhere.
    one.ip("route", "add", "default", "via", network["gateway"])
    for address in (topology.INTERNET, topology.LAN, topology.HOST):
        assert not one.ping(address, timeout=0.3), f"an internal network reached {address}"
    assert servers.unreachable(one, "tcp", topology.INTERNET, 7)
    assert servers.unreachable(one, "udp", topology.INTERNET, 7)


def test_internal_network_is_not_reached_from_outside(host, lan, bridge_nf):
    create(host, "inner", internal=True, subnet="10.9.0.0/24")
    guest = host.attach_guest("g", network="inner")
    lan.ip("route", "add", "10.9.0.0/24", "via", topology.HOST)
    try:
        with servers.TcpServer(guest, 80) as server:
            assert not lan.ping(guest.ip_address, timeout=0.3)
            assert servers.unreachable(lan, "tcp", guest.ip_address, 80)
            assert server.clients == []
            assert servers.greeting(host, "tcp", guest.ip_address, 80)[0] == "tcp", "the host itself reaches its guests"
    finally:
        lan.ip("route", "del", "10.9.0.0/24")


def test_networks_never_reach_one_another(host, bridge_nf):
    create(host, "blue")
    create(host, "inner", internal=True)
    guests = {name: host.attach_guest(f"in-{name}", network=name) for name in ("default", "blue", "inner")}
    with servers.TcpServer(guests["default"], 80) as a, servers.TcpServer(guests["blue"], 80) as b, \
            servers.TcpServer(guests["inner"], 80) as c:
        for source, guest in guests.items():
            for target, other in guests.items():
                if source == target:
                    continue
                assert not guest.ping(other.ip_address, timeout=0.2), f"{source} reached {target}"
                assert servers.unreachable(guest, "tcp", other.ip_address, 80, 0.3), f"{source} reached {target}"
        assert a.clients + b.clients + c.clients == []


def test_a_foreign_networks_gateway_is_not_reached_but_for_published_ports(host, bridge_nf):
    blue = create(host, "blue")
    guest = host.attach_guest("g", network="default")
    with servers.TcpServer(host, 9999) as server:
        assert servers.unreachable(guest, "tcp", blue["gateway"], 9999)
        assert servers.unreachable(guest, "tcp", "10.88.0.1", 9999)
        assert servers.unreachable(guest, "tcp", topology.HOST, 9999)
        assert server.clients == [], "a service of the host was reached without --host-access"
    with pytest.raises(OSError):
        dns.ask(guest, blue["gateway"], "g", timeout=0.3)


def test_no_dns_leaves_port_53_closed(host):
    network = create(host, "plain", dns=False)
    guest = host.attach_guest("g", network="plain")
    with pytest.raises(OSError):
        dns.ask(guest, network["gateway"], "g", timeout=0.5)
    assert servers.unreachable(guest, "tcp", network["gateway"], 53)
    assert network["dns"] is False


def test_dns_servers_of_a_network(host, world):
    second = dns.DnsServer(world.outside, topology.INTERNET)
    try:
        second.add("only.here", "A", "192.0.2.55")
        host.moat("net", "create", "blue", "--dns", topology.INTERNET)
        guest = host.attach_guest("g", network="blue")
        assert dns.ask(guest, guest.gateway, "only.here").data == ["192.0.2.55"]
        other = host.attach_guest("h")
        assert dns.ask(other, other.gateway, "only.here").rcode == "NXDOMAIN"
    finally:
        second.close()


def test_networks_are_there_again_after_a_restart(host):
    create(host, "blue", subnet="10.9.0.0/24", labels={"a": "b"}, mtu=1400)
    before = host.call("network.list")
    host.restart()
    assert host.call("network.list") == before
    host.attach_guest("g", network="blue")


@pytest.mark.slow
@pytest.mark.limit(180)
def test_a_thousand_networks_is_the_limit(host):
    for i in range(1023):
        create(host, f"n{i}", subnet=f"10.{i // 250}.{i % 250}.0/29", dns=False)
    error = host.error("network.create", name="one-more", subnet="10.30.0.0/29")
    assert error.reason == "quota" and "1024" in error.message
    assert host.attach_guest("g", network="n1022").ping("10.4.22.1")
    host.moat("teardown", "--yes", timeout=90)


@pytest.mark.parametrize("members, wrong", [
    ({"subnet6": "::ffff:10.0.0.0/112"}, "subnet_invalid"), ({"subnet6": "::/64"}, "subnet_invalid"), ({"subnet6": "100::/64"}, "subnet_invalid"),
    ({"subnet6": "fe80:1::/64"}, "subnet_invalid"), ({"subnet6": "ff02::/64"}, "subnet_invalid"),
    ({"bridge": "all"}, "bridge"), ({"bridge": "default"}, "bridge"),
    ({"subnet": "10.20.0.0/30", "ip_range": "10.20.0.1/32"}, "subnet_invalid"), ({"subnet": "10.20.0.0/24", "ip_range": "10.20.0.0/31"}, "subnet_invalid"),
    ({"subnet": "10.20.0.0/24", "gateway": "10.20.0.254", "ip_range": "10.20.0.254/31"}, "subnet_invalid"),
])
def test_what_could_never_work(host, members, wrong):
    """Said for what it is, before the kernel says it in its own words."""
    error = host.error("network.create", name="x", **members)
    assert wrong in (error.reason, error.field), str(error)
    assert [network["name"] for network in host.call("network.list")] == ["default"]


def test_the_smallest_range(host):
    host.moat("net", "create", "x", "--subnet", "10.20.0.0/30", "--ip-range", "10.20.0.2/31")
    assert host.attach_guest("box", network="x").ip_address == "10.20.0.2"
