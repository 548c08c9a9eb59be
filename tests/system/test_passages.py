# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks never reach each other, until `moat net allow` says what may: that, one way, and nothing else."""

import re

import pytest

import servers
import topology
from test_policy import attempt
from wait import wait_for


@pytest.fixture
def pair(host):
    """A guest on each of two networks; both serve TCP and UDP on ports 80 and 81."""
    host.moat("net", "create", "front", "--ipv6")
    host.moat("net", "create", "back", "--ipv6")
    guests = [host.attach_guest(name, network=network) for name, network in (("web", "front"), ("db", "back"))]
    running = []
    for guest in guests:
        for port in (80, 81):
            for address in ("0.0.0.0", "::"):
                running.append(servers.TcpServer(guest, port, address, name=guest.name))
                running.append(servers.UdpServer(guest, port, address, name=guest.name))
    yield guests
    for server in running:
        server.close()


def address_of(guest, family):
    endpoint = guest.endpoint()
    return endpoint["ip6" if family == 6 else "ip"]


def opened(client, server, family=4):
    """Which of its ports a guest reaches."""
    address = address_of(server, family)
    return {f"{port}/{protocol}" for port in (80, 81) for protocol in ("tcp", "udp")
            if attempt(client, protocol, address, port, 0.4) == "open"}


ALL = {"80/tcp", "81/tcp", "80/udp", "81/udp"}


@pytest.mark.parametrize("family", [4, 6])
def test_exactly_what_is_allowed_and_one_way(host, pair, family, bridge_nf):
    web, db = pair
    assert opened(web, db, family) == set() and opened(db, web, family) == set()
    host.moat("net", "allow", "front", "back", "80", "81/udp")
    assert opened(web, db, family) == {"80/tcp", "81/udp"}
    assert opened(db, web, family) == set()
    assert not web.ping(address_of(db, family), timeout=0.3)
    host.moat("net", "deny", "front", "back", "80")
    assert opened(web, db, family) == {"81/udp"}
    host.moat("net", "deny", "front", "back")
    assert opened(web, db, family) == set()


@pytest.mark.parametrize("family", [4, 6])
def test_without_ports_everything(host, pair, family):
    web, db = pair
    host.moat("net", "allow", "front", "back")
    assert opened(web, db, family) == ALL and web.ping(address_of(db, family))
    assert opened(db, web, family) == set() and not db.ping(address_of(web, family), timeout=0.3)
    host.moat("net", "deny", "front", "back")
    assert opened(web, db, family) == set() and not web.ping(address_of(db, family), timeout=0.3)


def test_the_client_keeps_its_address(host, pair):
    web, db = pair
    host.moat("net", "allow", "front", "back", "80")
    assert servers.tcp_greeting(web, db.ip_address, 80) == ("db", web.ip_address)
    assert servers.tcp_greeting(web, address_of(db, 6), 80) == ("db", address_of(web, 6))


def test_others_stay_out(host, pair, lan, internet):
    """A third network, the LAN, and a hand-made route in a guest."""
    web, db = pair
    host.moat("net", "create", "third")
    third = host.attach_guest("third", network="third")
    host.moat("net", "allow", "front", "back")
    assert opened(web, db) == ALL
    third.ip("route", "replace", db.ip_address, "via", third.gateway)
    db.ip("route", "replace", web.ip_address, "via", db.gateway)
    lan.ip("route", "add", db.ip_address, "via", topology.HOST)
    try:
        assert opened(third, db) == set() and opened(db, web) == set() and opened(lan, db) == set()
        assert attempt(web, "tcp", db.gateway, 22, 0.4) == "ECONNREFUSED"
    finally:
        lan.ip("route", "del", db.ip_address)


def test_policy_and_mode_of_the_guests_still_hold(host, pair):
    web, db = pair
    host.moat("net", "allow", "front", "back")
    host.moat("policy", "set", "web", "--deny", f"{db.ip_address}:80")
    assert opened(web, db) == {"81/tcp", "81/udp"}
    host.moat("policy", "set", "web")
    host.moat("policy", "set", "db", "--mode", "outbound")
    assert opened(web, db) == set()
    host.moat("policy", "set", "db", "--mode", "full")
    assert opened(web, db) == ALL


@pytest.mark.parametrize("option", ["--isolated", "--internal"])
def test_into_networks_of_other_kinds(host, pair, option):
    """An internal guest has no way back: it sees its gateway as the client."""
    web, _ = pair
    host.moat("net", "create", "special", option)
    one, two = (host.attach_guest(name, network="special") for name in ("one", "two"))
    with servers.TcpServer(one, 80, name="one"), servers.TcpServer(two, 80, name="two"):
        assert servers.unreachable(web, "tcp", one.ip_address, 80)
        host.moat("net", "allow", "front", "special", "80")
        client = one.gateway if option == "--internal" else web.ip_address
        assert servers.tcp_greeting(web, one.ip_address, 80) == ("one", client)
        assert servers.unreachable(one, "tcp", topology.INTERNET, 7) == (option == "--internal")
        assert servers.unreachable(one, "tcp", two.ip_address, 80) == (option == "--isolated")
        assert servers.unreachable(one, "tcp", web.ip_address, 80)


def shown(host, name):
    network = host.moat("net", "inspect", name).json[0]
    return network.get("allowed_to"), network.get("allowed_from")


def test_what_is_open_is_shown_in_its_shortest_form(host, pair):
    assert shown(host, "front") == (None, None)
    for ports in (["80-90"], ["91"], ["85"], ["53/udp"], ["80-90", "53/udp"]):
        host.moat("net", "allow", "front", "back", *ports)
    assert shown(host, "front") == ([{"network": "back", "ports": ["80-91/tcp", "53/udp"]}], None)
    assert shown(host, "back") == (None, [{"network": "front", "ports": ["80-91/tcp", "53/udp"]}])
    host.moat("net", "deny", "front", "back", "82-89", "1000-2000", check=False)
    host.moat("net", "deny", "front", "back", "82-89")
    host.moat("net", "allow", "default", "front")
    assert shown(host, "front") == ([{"network": "back", "ports": ["80-81/tcp", "90-91/tcp", "53/udp"]}],
                                    [{"network": "default", "ports": []}])
    host.moat("net", "allow", "front", "back")
    assert shown(host, "front")[0] == [{"network": "back", "ports": []}]
    host.moat("net", "allow", "front", "back", "80")
    assert shown(host, "front")[0] == [{"network": "back", "ports": []}]
    host.moat("net", "deny", "front", "back")
    assert shown(host, "front")[0] is None


@pytest.mark.parametrize("crash", [False, True], ids=["stop", "kill"])
def test_kept_over_restarts(host, pair, crash):
    web, db = pair
    host.moat("net", "allow", "front", "back", "80-81")
    before = shown(host, "front")
    host.crash() if crash else host.stop()
    assert opened(web, db) == {"80/tcp", "81/tcp"}
    host.start()
    assert shown(host, "front") == before and opened(web, db) == {"80/tcp", "81/tcp"}
    host.moat("net", "deny", "front", "back", "81")
    assert opened(web, db) == {"80/tcp"}


def test_a_lost_table_comes_back_with_it(host, pair):
    web, db = pair
    host.moat("net", "allow", "front", "back", "80")
    host.run("nft", "flush", "ruleset", check=False)
    host.run("nft", "delete", "table", "inet", "moat", check=False)
    wait_for(lambda: opened(web, db) == {"80/tcp"}, 3, "the passage")


@pytest.mark.parametrize("gone", ["front", "back"])
def test_it_goes_with_either_network(host, pair, gone):
    def elements():
        text = host.run("nft", "list", "set", "inet", "moat", "passage_port") + host.run("nft", "list", "set", "inet", "moat", "passage")
        return re.findall(r"elements = ", text)

    host.moat("net", "create", "third")
    host.moat("net", "allow", "front", "back", "80")
    host.moat("net", "allow", "back", "front", "80")
    host.moat("net", "allow", "third", gone)
    assert len(elements()) == 2
    host.moat("net", "rm", gone, "--force")
    assert elements() == []
    assert not any("allowed_to" in network or "allowed_from" in network for network in host.call("network.list"))
    # A network of the same name is another one.
    host.moat("net", "create", gone)
    assert shown(host, gone) == (None, None)


def test_connections_that_run_go_on(host, pair):
    web, db = pair
    host.moat("net", "allow", "front", "back", "80")
    with servers.connect(web, db.ip_address, 80) as sock:
        servers.read_line(sock)
        host.moat("net", "deny", "front", "back")
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert opened(web, db) == set()


# What is refused

def test_refusals(host, pair):
    host.moat("net", "create", "closed", "--internal")
    host.moat("net", "create", "six", "--ipv4=false", "--ipv6")
    before, kernel = host.call("network.list"), host.kernel()
    host.refused("net", "allow", "front", "front", code=2, says=["front", "same network"])
    host.refused("net", "allow", "closed", "front", says=["closed", "internal"])
    host.refused("net", "allow", "default", "six", says=["no address family"])
    host.refused("net", "allow", "front", "nowhere", says=["nowhere", "moat net ls"])
    host.refused("net", "deny", "front", "back", says=["nothing is allowed", "front", "back"])
    assert host.call("network.list") == before and not kernel.differences(host.kernel())
    host.moat("net", "allow", "front", "back", "80")
    host.refused("net", "deny", "front", "back", "81", says=["81/tcp", "what is: 80/tcp"])
    host.moat("net", "allow", "front", "back")
    host.refused("net", "deny", "front", "back", "81", says=["everything is allowed", "without ports"])
    assert shown(host, "front")[0] == [{"network": "back", "ports": []}]


def test_the_number_of_passages_is_limited(host, pair):
    for i in range(16):
        host.call("network.allow", **{"from": "front", "to": "back", "ports": [f"{4 * j + 1024 * i + 1}" for j in range(256)]})
    error = host.error("network.allow", **{"from": "front", "to": "back", "ports": ["65535"]})
    assert error.reason == "quota" and "4096" in error.message
    error = host.error("network.allow", **{"from": "back", "to": "front"})
    assert error.reason == "quota"
    host.call("network.allow", **{"from": "front", "to": "back", "ports": ["1-65535"]})
    assert shown(host, "front")[0] == [{"network": "back", "ports": ["1-65535/tcp"]}]
    host.call("network.allow", **{"from": "back", "to": "front"})


@pytest.mark.parametrize("step", ["nat.commit", "store.commit"])
def test_a_change_that_fails_changes_nothing(machine, internet, step):
    machine.start()
    machine.call("network.create", name="front")
    machine.call("network.create", name="back")
    machine.call("network.allow", **{"from": "front", "to": "back", "ports": ["80"]})
    before, kernel = machine.call("network.list"), machine.kernel()
    for method, ports in (("network.allow", ["81"]), ("network.deny", [])):
        machine.restart(env={"MOAT_FAULT": step})
        machine.error(method, **{"from": "front", "to": "back", "ports": ports})
        assert machine.call("network.list") == before and not kernel.differences(machine.kernel())
    machine.restart()
    assert machine.call("network.list") == before


def test_events_tell(host, pair):
    watcher = host.rpc().subscribe()
    host.moat("net", "allow", "front", "back", "80")
    event = watcher.next_event()
    assert (event["type"], event["network"], event["detail"]) == ("network.allowed", "front", "to back: 80/tcp")
    host.moat("net", "deny", "front", "back")
    event = watcher.next_event()
    assert (event["type"], event["network"], event["detail"]) == ("network.denied", "front", "to back: everything")
