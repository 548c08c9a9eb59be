# SPDX-License-Identifier: GPL-2.0-or-later
"""moat policy test: what it says is what packets find, and it sends none."""

import pytest

import dns
import servers
import topology
from test_policy import attempt

NAME = "www.example.org"


def say(host, destination, guest="guest"):
    """("allowed" or "denied", why)"""
    verdict, reason = host.moat("policy", "test", guest, destination).line.split(": ", 1)
    answer = host.call("policy.test", guest=guest, destination=destination)
    assert (answer["allowed"], answer["reason"]) == (verdict == "allowed", reason)
    return verdict, reason


def set_policy(host, *options, guest="guest"):
    host.moat("policy", "set", guest, *options)


@pytest.fixture
def guest(host, internet):
    return host.attach_guest("guest")


@pytest.mark.parametrize("rules, destination, verdict, reason", [
    ([], "192.0.2.1:80", "allowed", "the guest has no rules"),
    (["--allow", "192.0.2.0/24:80"], "192.0.2.1:80", "allowed", "allow 192.0.2.0/24:80"),
    (["--allow", "192.0.2.0/24:80"], "192.0.2.1:80/tcp", "allowed", "allow 192.0.2.0/24:80"),
    (["--allow", "192.0.2.0/24:80/tcp"], "192.0.2.1:80/udp", "denied", "no allow rule matches"),
    (["--allow", "192.0.2.0/24:80"], "192.0.2.1:81", "denied", "no allow rule matches"),
    (["--allow", "any", "--deny", "192.0.2.1:80-90"], "192.0.2.1:85", "denied", "deny 192.0.2.1:80-90"),
    (["--deny", "@private"], "192.168.1.1:80", "denied", "deny @private"),
    (["--deny", "@private"], "192.0.2.1:80", "allowed", "no deny rule matches"),
    (["--allow", "any/icmp"], "192.0.2.1/icmp", "allowed", "allow any/icmp"),
    (["--allow", "any/icmp"], "192.0.2.1:7", "denied", "no allow rule matches"),
    (["--allow", NAME], f"{NAME}:443", "allowed", f"allow {NAME}"),
    (["--allow", f"{NAME}:443"], f"{NAME}:443/tcp", "allowed", f"allow {NAME}:443"),
    (["--allow", f"{NAME}:443"], f"{NAME}:80", "denied", "no allow rule matches"),
    (["--allow", f"{NAME}:443"], "example.net:443", "denied", "no allow rule names it"),
    (["--allow", ".example.org", "--deny", NAME], f"{NAME}:443", "denied", f"deny {NAME}"),
    (["--allow", ".example.org", "--deny", f"{NAME}:80"], f"{NAME}:80", "denied", f"deny {NAME}:80"),
    (["--allow", NAME], "192.0.2.1:443", "denied", "no allow rule matches"),
    (["--deny", "example.net"], "192.0.2.1:53/udp", "denied", "other name servers are closed"),
    (["--allow", "any"], "example.net:443", "allowed", "allow any"),
    ([], "127.0.0.1:80", "allowed", "the guest itself"),
])
def test_rules(host, guest, rules, destination, verdict, reason):
    set_policy(host, *rules)
    told, why = say(host, destination)
    assert told == verdict and reason in why


def test_the_rule_is_named_for_scripts(host, guest):
    set_policy(host, "--allow", "any", "--deny", "192.0.2.1")
    assert host.call("policy.test", guest="guest", destination="192.0.2.1:80") == {
        "allowed": False, "list": "deny", "rule": "192.0.2.1", "reason": "deny 192.0.2.1"}
    assert host.moat("policy", "test", "guest", "192.0.2.9:80", "--json").json == {
        "allowed": True, "list": "allow", "rule": "any", "reason": "allow any"}
    set_policy(host)
    answer = host.call("policy.test", guest="guest", destination="192.0.2.1:80")
    assert answer["list"] is None and answer["rule"] is None


def test_an_address_that_was_given_for_a_name(host, guest, internet):
    set_policy(host, "--allow", f"{NAME}:7")
    assert say(host, f"{topology.INTERNET}:7")[0] == "denied"
    dns.ask(guest, guest.gateway, NAME)
    assert say(host, f"{topology.INTERNET}:7") == ("allowed", f"allow {NAME}:7, as an address that was given for {NAME}")
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"


def test_what_networks_and_modes_let_through(host, lan, internet):
    """Each verdict beside the attempt itself."""
    host.moat("net", "create", "apart", "--isolated")
    host.moat("net", "create", "inside", "--internal")
    host.moat("net", "create", "open", "--host-access")
    guests = {name: host.attach_guest(name, network=network) for name, network in
              (("peer", "default"), ("guest", "default"), ("one", "apart"), ("two", "apart"), ("shut", "inside"), ("friend", "open"))}
    quiet = host.attach_guest("quiet", "--mode", "outbound")
    hidden = host.attach_guest("hidden", "--mode", "outbound", network="open")
    host.moat("port", "add", "peer", "8080:80")
    host.moat("net", "allow", "default", "open", "80", "81/udp")
    addresses = {name: guest.ip_address for name, guest in guests.items()}
    with servers.TcpServer(guests["peer"], 80), servers.TcpServer(guests["two"], 80), servers.TcpServer(quiet, 80), \
            servers.TcpServer(host, 90), servers.TcpServer(lan, 80), \
            servers.TcpServer(guests["friend"], 80), servers.TcpServer(guests["friend"], 81), \
            servers.TcpServer(hidden, 80):
        for guest, address, port, says in (
                ("guest", addresses["peer"], 80, ""), ("guest", quiet.ip_address, 80, "mode outbound"),
                ("guest", topology.INTERNET, 7, ""), ("guest", topology.LAN, 80, ""),
                ("guest", addresses["two"], 80, "a network that the guest is not on"),
                ("guest", addresses["friend"], 80, ""), ("guest", addresses["friend"], 81, "not let"),
                ("friend", quiet.ip_address, 80, "not let"), ("guest", hidden.ip_address, 80, "mode outbound"),
                ("friend", guests["guest"].ip_address, 80, "\"open\" is not let"),
                ("one", addresses["two"], 80, "isolated"), ("one", topology.INTERNET, 7, ""),
                ("shut", topology.INTERNET, 7, "outside"), ("guest", topology.HOST, 90, "host-access"),
                ("friend", topology.HOST, 90, ""), ("guest", topology.HOST, 8080, "published by guest \"peer\""),
                ("guest", guests["guest"].gateway, 8080, "published"), ("guest", guests["guest"].gateway, 53, "name service"),
                ("guest", guests["guest"].gateway, 90, "host-access")):
            verdict, reason = say(host, f"{address}:{port}", guest)
            outcome = "open" if port == 53 else attempt(guests[guest], "tcp", address, port, 1)
            assert (verdict == "allowed") == (outcome == "open"), (guest, address, port, verdict, reason, outcome)
            assert says in reason, (guest, address, port, reason)


def test_modes(host):
    job = host.run_guest("alone", "--mode", "loopback")
    assert say(host, "192.0.2.1:80", "alone") == ("denied", "the guest is in mode loopback")
    job.end()


def test_no_packet_is_sent(host, guest, internet):
    set_policy(host, "--allow", f"{NAME}:7")
    say(host, f"{NAME}:7")
    say(host, f"{topology.INTERNET}:7")
    assert internet.dns.questions == [] and internet.tcp.clients == []


def test_a_port_that_a_peer_publishes(host, guest):
    host.attach_guest("peer", "-p", "8080:80")
    assert say(host, f"{topology.HOST}:8080") == ("allowed", 'the guest has no rules; port published by guest "peer"')
    set_policy(host, "--allow", "any")
    assert say(host, f"{topology.HOST}:8080") == ("allowed", 'allow any; port published by guest "peer"')


def test_a_name_on_ipv6_alone(host):
    """The connection would go out by IPv6."""
    host.moat("net", "create", "six", "--ipv6", "--ipv4=false")
    host.attach_guest("guest", "--allow", f"{NAME}:7", network="six")
    told, why = say(host, f"{NAME}:7")
    assert (told, why) == ("allowed", f"allow {NAME}:7")
    host.moat("net", "create", "closed", "--internal")
    host.attach_guest("inside", network="closed")
    told, why = say(host, f"{NAME}:7", guest="inside")
    assert told == "denied" and "no network with an outside" in why
