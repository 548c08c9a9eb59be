# SPDX-License-Identifier: GPL-2.0-or-later
"""Other firewalls of the host: doctor says which of them stops what, and its remedy helps. Real packets have the word."""

import re
import shutil

import pytest

import dns
import servers
import topology
from test_ports import published

ESTABLISHED = "ct state established,related accept;"


@pytest.fixture
def firewall(host):
    """Makes rules of somebody else, which go at the end."""
    tables = []

    def make(chain, *, hook, policy, rules="", family="inet"):
        host.run("nft", "-f", "-", input=f"table {family} other {{\nchain {chain} {{\ntype filter hook {hook} priority 0; "
                                         f"policy {policy}\n{rules}\n}}\n}}\n")
        tables.append((family, "other"))

    yield make
    for family, table in tables:
        host.nft(f"delete table {family} {table}")


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def iptables(host, request):
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param}")
    if host.run(request.param, "-S", check=False).returncode != 0:
        pytest.skip(f"this kernel has no {request.param}")
    yield lambda *arguments: host.run(request.param, *arguments)
    for chain in ("FORWARD", "INPUT"):
        host.run(request.param, "-P", chain, "ACCEPT")
    for flag in ("-F", "-X"):
        host.run(request.param, flag)
    if request.param == "iptables-nft":
        host.run("nft", "delete", "table", "ip", "filter")
    host.run("rm", "-f", "/run/xtables.lock")


def check(host, name):
    return [c for c in host.call("system.doctor") if c["name"] == name][0]


def follow(host, remedy, iptables=None):
    """What the remedy says, as somebody would type it."""
    for command in remedy.split(" (")[0].split(", the same")[0].split("; "):
        if command.startswith("nft "):
            host.run(*re.sub(r"'\{(.*?)\}'", r"{\1}", command).split())
        elif iptables and command.startswith("iptables "):
            iptables(*command.split()[1:])


def goes_out(guest):
    return not servers.unreachable(guest, "tcp", topology.INTERNET, 7)


def resolves(guest):
    try:
        return dns.ask(guest, guest.gateway, "www.example.org", "A", timeout=0.5).data == [topology.INTERNET]
    except OSError:
        return False


@pytest.mark.parametrize("policy, rules", [("drop", ""), ("drop", ESTABLISHED), ("accept", ESTABLISHED + " counter drop"),
                                           ("accept", ESTABLISHED + ' iifname "lan*" accept; reject'),
                                           ("drop", ESTABLISHED + ' tcp dport { 22, 80 } accept')])
@pytest.mark.parametrize("mode", ["full", "outbound"], ids=["bridged", "routed"])
def test_a_drop_on_the_way_out(host, internet, firewall, policy, rules, mode):
    guest = host.attach_guest("guest", "--mode", mode)
    assert check(host, "forward")["ok"] and goes_out(guest)
    firewall("f", hook="forward", policy=policy, rules=rules)
    found = check(host, "forward")
    assert not found["ok"] and "inet other f" in found["detail"] and "default" in found["detail"]
    assert "\n" not in found["remedy"] and not goes_out(guest)
    assert host.moat("doctor", check=False).code == 1
    follow(host, found["remedy"])
    assert check(host, "forward")["ok"] and goes_out(guest)


@pytest.mark.parametrize("rules", ['iifname "moat0" accept; oifname "moat0" accept;', "ip saddr 10.88.0.0/16 accept; ip daddr 10.88.0.0/16 accept;",
                                   'oifname "eth0" accept; ct status dnat accept;'])
def test_a_firewall_that_knows_of_moat(host, internet, lan, firewall, rules):
    """No alarm where the packets pass."""
    with published(host, "8080:80") as guest:
        firewall("f", hook="forward", policy="drop", rules=ESTABLISHED + rules)
        assert check(host, "forward")["ok"]
        assert goes_out(guest) and servers.greeting(lan, "tcp", topology.HOST, 8080)[0] == "guest"


def test_a_drop_on_the_way_in_only(host, internet, lan, firewall):
    with published(host, "8080:80") as guest:
        firewall("f", hook="forward", policy="drop", rules=ESTABLISHED + 'iifname "moat0" accept')
        found = check(host, "forward")
        assert not found["ok"] and "published" in found["detail"]
        assert goes_out(guest) and servers.unreachable(lan, "tcp", topology.HOST, 8080)
        follow(host, found["remedy"])
        assert check(host, "forward")["ok"] and servers.greeting(lan, "tcp", topology.HOST, 8080)[0] == "guest"


def test_an_accept_for_the_bridge_is_none_for_a_routed_guest(host, internet, firewall):
    bridged, routed = host.attach_guest("bridged"), host.attach_guest("routed", "--mode", "outbound")
    firewall("f", hook="forward", policy="drop", rules=ESTABLISHED + 'iifname "moat0" accept')
    assert goes_out(bridged) and not goes_out(routed)
    assert not check(host, "forward")["ok"]


@pytest.mark.parametrize("policy, rules", [("drop", ESTABLISHED), ("drop", ESTABLISHED + "tcp dport 22 accept"),
                                           ("accept", ESTABLISHED + 'iif lo accept; icmp type echo-request accept; reject')])
def test_an_input_that_drops_names(host, internet, firewall, policy, rules):
    guest = host.attach_guest("guest")
    assert check(host, "input")["ok"] and resolves(guest)
    firewall("i", hook="input", policy=policy, rules=rules)
    found = check(host, "input")
    assert not found["ok"] and "inet other i" in found["detail"] and "53" in found["detail"]
    assert not resolves(guest) and "\n" not in found["remedy"]
    follow(host, found["remedy"])
    assert check(host, "input")["ok"] and resolves(guest)


def test_an_input_that_drops_dhcp(host, firewall):
    """Only where a machine asks for it."""
    firewall("i", hook="input", policy="drop", rules=ESTABLISHED + "th dport 53 accept")
    assert check(host, "input")["ok"]
    host.moat("attach", "vm", "--network", "default", "--tap")
    found = check(host, "input")
    assert not found["ok"] and "DHCP" in found["detail"]


def test_rules_that_are_not_understood(host, internet, firewall):
    firewall("f", hook="forward", policy="drop", rules="meta mark 7 accept")
    found = check(host, "forward")
    assert found["ok"] and "inet other f" in found["detail"] and "does not read" in found["detail"]


def test_iptables_on_the_way_out(host, internet, iptables):
    guest = host.attach_guest("guest")
    iptables("-P", "FORWARD", "DROP")
    iptables("-A", "FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
    found = check(host, "forward")
    assert not found["ok"] and "filter FORWARD" in found["detail"] and not goes_out(guest)
    follow(host, found["remedy"], iptables)
    assert check(host, "forward")["ok"] and goes_out(guest)


def test_iptables_for_names(host, internet, iptables):
    guest = host.attach_guest("guest")
    iptables("-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
    iptables("-A", "INPUT", "-j", "REJECT")
    found = check(host, "input")
    assert not found["ok"] and "filter INPUT" in found["detail"] and not resolves(guest)
    follow(host, found["remedy"], iptables)
    assert resolves(guest)
    assert "by TCP" in check(host, "input")["detail"], "the remedy speaks of TCP too, which was not done yet"


def test_doctor_changes_nothing(host, internet, firewall):
    host.attach_guest("guest")
    firewall("f", hook="forward", policy="drop")
    before, legacy = host.kernel(), host.run("cat", "/proc/net/ip_tables_names")
    host.moat("doctor", check=False)
    assert not before.differences(host.kernel())
    assert host.run("cat", "/proc/net/ip_tables_names") == legacy
