# SPDX-License-Identifier: GPL-2.0-or-later
"""Other firewalls of the host: doctor says which of them stops what, and its remedy helps. Real packets have the word."""

import re
import shutil

import pytest

import dns
import servers
import topology
from test_ports import published
from wait import wait_for

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
def iptables(machine, request):
    host = machine
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param}")
    if host.run(request.param, "-S", check=False).returncode != 0:
        pytest.skip(f"this kernel has no {request.param}")


    def program(*arguments):
        return host.run(request.param, *arguments)

    program.legacy = request.param.endswith("legacy")
    yield program
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


# With the administrator's leave

@pytest.fixture
def open_host(machine, internet):
    machine.configure("[network]\nopen_firewalls = yes\n")
    machine.start()
    yield machine


def marks(host):
    """The rules of moat's in chains of others: (chain, what it accepts)."""
    chain, found = None, []
    for line in host.run("nft", "list", "ruleset").splitlines():
        if line.strip().startswith("chain "):
            chain = line.split()[1]
        if 'comment "moat: ' in line:
            found.append((chain, re.search(r"(s|d)addr \S+", line).group()))
    return found


BOTH = ["daddr 10.88.0.0/16", "saddr 10.88.0.0/16"]


def test_a_dropping_firewall_is_opened(open_host, lan):
    host = open_host
    with published(host, "8080:80") as guest:
        routed = host.attach_guest("routed", "--mode", "outbound")
        host.run("nft", "-f", "-", input=f"table inet other {{\nchain f {{\ntype filter hook forward priority 0; policy drop\n{ESTABLISHED}\n}}\n}}\n")
        wait_for(lambda: check(host, "forward")["ok"], 5, "the rules")
        assert goes_out(guest) and goes_out(routed)
        assert servers.greeting(lan, "tcp", topology.HOST, 8080)[1] == topology.LAN
        assert sorted(marks(host)) == [("f", text) for text in BOTH]
        # It is loaded again, and a rule of ours is taken away.
        host.run("nft", "-f", "-", input=f"flush chain inet other f\nadd rule inet other f {ESTABLISHED}\n")
        wait_for(lambda: sorted(marks(host)) == [("f", text) for text in BOTH], 5, "the rules, again")
        handle = re.search(r"daddr.*handle (\d+)", host.run("nft", "-a", "list", "chain", "inet", "other", "f")).group(1)
        host.run("nft", "delete", "rule", "inet", "other", "f", "handle", handle)
        wait_for(lambda: sorted(marks(host)) == [("f", text) for text in BOTH], 5, "the rule that was taken away")
        # What moat forbids stays forbidden.
        assert servers.unreachable(lan, "tcp", routed.ip_address, 80)
        host.run("nft", "delete", "table", "inet", "other")


def test_networks_come_and_go(open_host):
    host = open_host
    host.run("nft", "-f", "-", input="table ip other {\nchain f {\ntype filter hook forward priority 0; policy drop\n}\n}\n")
    host.call("network.create", name="blue", subnet="10.9.0.0/24", ipv6=True)
    host.call("network.create", name="inner", subnet="10.9.1.0/24", internal=True)
    want = {*BOTH, "daddr 10.9.0.0/24", "saddr 10.9.0.0/24"}
    wait_for(lambda: {text for _, text in marks(host)} == want, 5, "the new network's rules")
    host.call("network.remove", name="blue")
    wait_for(lambda: {text for _, text in marks(host)} == set(BOTH), 5, "the end of its rules")
    # A start without leave takes them back.
    host.configure("")
    host.restart()
    assert marks(host) == []
    host.run("nft", "delete", "table", "ip", "other")


def test_a_firewall_that_lets_pass_is_left_alone(open_host, internet):
    host = open_host
    guest = host.attach_guest("guest")
    host.run("nft", "-f", "-", input="table inet other {\nchain f {\ntype filter hook forward priority 0; policy accept\n"
                                     "ip daddr 9.9.9.9 drop\n}\n}\n")
    host.call("network.create", name="blue")
    assert goes_out(guest)
    host.run("nft", "add", "rule", "inet", "other", "f", "drop")
    wait_for(lambda: len(marks(host)) == 4, 5, "the rules, now that it stops something")
    host.run("nft", "delete", "table", "inet", "other")


def test_docker_user(open_host, internet, iptables):
    """iptables-nft reads our rules back, and Docker's own chains are not touched."""
    host = open_host
    for arguments in (["-P", "FORWARD", "DROP"], ["-N", "DOCKER-USER"], ["-A", "FORWARD", "-j", "DOCKER-USER"],
                      ["-A", "DOCKER-USER", "-j", "RETURN"]):
        iptables(*arguments)
    guest = host.attach_guest("guest")
    if iptables.legacy:
        assert not check(host, "forward")["ok"] and not goes_out(guest), "iptables-legacy can't be opened, and doctor says so"
        return
    wait_for(lambda: check(host, "forward")["ok"], 5, "the rules")
    assert goes_out(guest)
    lines = iptables("-S", "DOCKER-USER").splitlines()
    assert sorted(lines[1:3]) == ['-A DOCKER-USER -d 10.88.0.0/16 -m comment --comment "moat: 10.88.0.0/16" -j ACCEPT',
                                  '-A DOCKER-USER -s 10.88.0.0/16 -m comment --comment "moat: 10.88.0.0/16" -j ACCEPT']
    assert lines[3] == "-A DOCKER-USER -j RETURN"
    assert iptables("-S", "FORWARD").splitlines() == ["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER"]
    host.moat("teardown", "--yes")
    assert iptables("-S", "DOCKER-USER").splitlines() == ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN"]


def test_without_leave_nothing_is_opened(host, firewall):
    firewall("f", hook="forward", policy="drop")
    host.call("network.create", name="blue")
    host.restart()
    assert marks(host) == []
