# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules: what a guest may open connections to, on the host's side, with a control for every denial."""

import contextlib
import errno
import re
import socket
import threading
import time

import pytest

import dns
import servers
import topology
from wait import wait_for


def attempt(net, protocol, address, port, timeout=2.0):
    """"open", or how it failed: the kernel's word, or "silence"."""
    family = servers.family_of(address)
    sock = net.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    sock.settimeout(timeout)
    try:
        sock.connect((address, port))
        if protocol == "udp":
            sock.send(b"hi")
        return "open" if sock.recv(100) else "closed"
    except (socket.timeout, TimeoutError):
        return "silence"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        sock.close()


REFUSED = {"tcp": "ECONNREFUSED", "udp": "EHOSTUNREACH"}
REFUSED6 = {"tcp": "ECONNREFUSED", "udp": "EACCES"}


def refused(net, protocol, address, port):
    """Denied at once, and told so: True, or what happened instead. The kernel bounds how many ICMP errors it sends
    (icmp_ratelimit), so that a datagram may have to be asked again; a reset comes each time."""
    wanted = (REFUSED6 if ":" in address else REFUSED)[protocol]
    for _ in range(1 if protocol == "tcp" else 5):
        outcome = attempt(net, protocol, address, port, 0.5)
        if outcome != "silence":
            return outcome == wanted or outcome
    return outcome


@pytest.fixture
def peer(host):
    peer = host.attach_guest("peer")
    with servers.TcpServer(peer, 80, name="peer"), servers.TcpServer(peer, 81, name="peer"), \
            servers.UdpServer(peer, 80, name="peer"):
        yield peer


@pytest.fixture
def guest(host, internet):
    return host.attach_guest("guest")


def set_policy(host, *options):
    return host.moat("policy", "set", "guest", *options)


# Rules

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_allow_rule_closes_the_rest(host, guest, peer, protocol, bridge_nf):
    assert attempt(guest, protocol, topology.INTERNET, 7) == "open"
    assert attempt(guest, protocol, peer.ip_address, 80) == "open"
    set_policy(host, "--allow", f"{peer.ip_address}:80")
    assert attempt(guest, protocol, peer.ip_address, 80) == "open"
    assert refused(guest, protocol, topology.INTERNET, 7) is True
    assert attempt(guest, "tcp", peer.ip_address, 81) == "ECONNREFUSED"
    assert not guest.ping(peer.ip_address, timeout=0.3)
    set_policy(host, "--allow", topology.INTERNET)
    assert attempt(guest, protocol, topology.INTERNET, 7) == "open"
    assert refused(guest, protocol, peer.ip_address, 80) is True


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_deny_rule_leaves_the_rest_open(host, guest, peer, protocol):
    set_policy(host, "--deny", f"{peer.ip_address}:80/{protocol}")
    assert refused(guest, protocol, peer.ip_address, 80) is True
    assert attempt(guest, "tcp", peer.ip_address, 81) == "open"
    assert attempt(guest, protocol, topology.INTERNET, 7) == "open"
    assert guest.ping(peer.ip_address)


def test_deny_wins(host, guest, peer):
    set_policy(host, "--allow", "any", "--deny", "10.0.0.0/8:80")
    assert refused(guest, "tcp", peer.ip_address, 80) is True
    assert attempt(guest, "tcp", peer.ip_address, 81) == "open"


def test_icmp_is_a_protocol(host, guest, peer):
    set_policy(host, "--allow", "any/icmp")
    assert guest.ping(peer.ip_address) and guest.ping(topology.INTERNET)
    assert refused(guest, "tcp", peer.ip_address, 80) is True
    set_policy(host, "--allow", "any/tcp")
    assert not guest.ping(topology.INTERNET, timeout=0.3)
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"


def test_public_is_neither_host_nor_peers_nor_lan(host, lan, guest, peer):
    with servers.TcpServer(lan, 80, name="lan"):
        assert attempt(guest, "tcp", topology.LAN, 80) == "open"
        host.moat("port", "add", "peer", "8080:80")
        assert attempt(guest, "tcp", topology.HOST, 8080) == "open"
        set_policy(host, "--allow", "@public")
        assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
        for address, port in ((topology.LAN, 80), (peer.ip_address, 80), (topology.HOST, 8080), (guest.gateway, 8080),
                              ("169.254.169.254", 80), ("127.0.0.1", 9)):
            assert attempt(guest, "tcp", address, port) == "ECONNREFUSED", address
        set_policy(host, "--deny", "@public")
        assert refused(guest, "tcp", topology.INTERNET, 7) is True
        for address, port in ((topology.LAN, 80), (peer.ip_address, 80), (topology.HOST, 8080), (guest.gateway, 8080)):
            assert attempt(guest, "tcp", address, port) == "open", address
        set_policy(host, "--allow", "@private:80")
        assert attempt(guest, "tcp", topology.LAN, 80) == "open"
        assert attempt(guest, "tcp", peer.ip_address, 80) == "open"
        assert attempt(guest, "tcp", topology.HOST, 8080) == "ECONNREFUSED"
        assert attempt(guest, "tcp", topology.INTERNET, 7) == "ECONNREFUSED"


def test_an_address_of_the_host_is_not_public_whatever_it_is(host, guest):
    host.ip("address", "add", "203.0.113.9/32", "dev", "lo")
    try:
        host.moat("net", "create", "open", "--host-access")
        far = host.attach_guest("far", "--allow", "@public", network="open")
        near = host.attach_guest("near", network="open")
        with servers.TcpServer(host, 90, name="host"):
            assert attempt(near, "tcp", "203.0.113.9", 90) == "open"
            assert attempt(far, "tcp", "203.0.113.9", 90) == "ECONNREFUSED"
            assert attempt(far, "tcp", topology.INTERNET, 7) == "open"
    finally:
        host.ip("address", "del", "203.0.113.9/32", "dev", "lo")


def test_names_are_answered_under_any_policy(host, guest, peer):
    set_policy(host, "--allow", "192.0.2.1")
    assert dns.ask(guest, guest.gateway, "peer").data == [peer.ip_address]
    assert refused(guest, "udp", topology.INTERNET_DNS, 53) is True


def test_answers_to_others_pass(host, guest, lan, peer):
    """A policy is about connections that the guest opens."""
    host.moat("port", "add", "guest", "8088:80")
    set_policy(host, "--deny", "any")
    with servers.TcpServer(guest, 80, name="guest"):
        assert servers.tcp_greeting(peer, guest.ip_address, 80)[0] == "guest"
        assert servers.tcp_greeting(lan, topology.HOST, 8088)[0] == "guest"
        assert refused(guest, "tcp", topology.INTERNET, 7) is True


def test_both_families(host, internet):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", "--deny", "[2001:db8:51::/48]:7", network="six")
    other = host.attach_guest("other", network="six")
    with servers.TcpServer(host.world.outside, 7, topology.INTERNET6, name="outside6"), \
            servers.UdpServer(host.world.outside, 7, topology.INTERNET6, name="outside6"):
        for protocol in ("tcp", "udp"):
            assert attempt(other, protocol, topology.INTERNET6, 7) == "open"
            assert refused(guest, protocol, topology.INTERNET6, 7) is True
            set_policy(host, "--allow", "::/0")
            assert attempt(guest, protocol, topology.INTERNET6, 7) == "open"
            assert refused(guest, protocol, topology.INTERNET, 7) is True
            set_policy(host, "--allow", "0.0.0.0/0")
            assert refused(guest, protocol, topology.INTERNET6, 7) is True
            assert attempt(guest, protocol, topology.INTERNET, 7) == "open"
            set_policy(host, "--deny", "[2001:db8:51::/48]:7")


def test_ipv6_peers_find_a_guest_that_moves_and_it_finds_them(host, internet):
    """Its port becomes a routed one, and a bridged one again, while both sides know each other's MAC address."""
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", network="six")
    peers = [host.attach_guest("bridged", network="six"), host.attach_guest("routed", "--deny", "192.0.2.1", network="six")]
    with contextlib.ExitStack() as stack:
        for net in (guest, *peers):
            stack.enter_context(servers.TcpServer(net, 80, "::", name="there"))
        for options in ([], ["--deny", "192.0.2.1"], [], ["--allow", "@private"], []):
            set_policy(host, *options)
            for peer in peers:
                assert attempt(guest, "tcp", peer.endpoint()["ip6"], 80, 0.9) == "open", (options, peer.name)
                assert attempt(peer, "tcp", guest.endpoint()["ip6"], 80, 0.9) == "open", (options, peer.name)
        routes = guest.ip_json("-6", "route", "show", "dev", "eth0")
        assert not [route for route in routes if route["dst"] != "default" and "gateway" in route], routes


# Its life

def test_a_guest_starts_with_its_policy(host, internet):
    outcome = host.moat("run", "--allow", "192.0.2.1", "--", "python3", "-c",
                        f"import socket; socket.create_connection(('{topology.INTERNET}', 7), 3)", check=False)
    assert outcome.code == 1 and "refused" in outcome.err
    host.moat("run", "--allow", f"{topology.INTERNET}:7/tcp", "--", "python3", "-c",
              f"import socket; socket.create_connection(('{topology.INTERNET}', 7), 3)")


def test_policy_is_shown_as_it_is_meant(host, guest):
    set_policy(host, "--allow", "192.0.2.0/24:443-443", "--allow", "[2001:DB8::]/32:80", "--deny", "@private/udp")
    assert host.moat("policy", "show", "guest").out.splitlines() == [
        "mode full", "allow 192.0.2.0/24:443", "allow [2001:db8::/32]:80", "deny @private/udp"]
    shown = host.call("guest.get", name="guest")["policy"]
    assert shown == {"allow": ["192.0.2.0/24:443", "[2001:db8::/32]:80"], "deny": ["@private/udp"], "log_denied": False}


def test_an_invalid_rule_changes_nothing(host, guest, peer):
    set_policy(host, "--allow", f"{peer.ip_address}:80")
    before, kernel = host.call("policy.get", guest="guest"), host.kernel()
    error = host.error("policy.set", guest="guest", allow=["any", "192.0.2.1", "10.0.0.1/8"])
    assert error.code == -32602 and error.data["field"] == "allow[2]" and "10.0.0.0/8" in error.message
    host.refused("policy", "set", "guest", "--deny", "any:0", code=2, says=["--deny", "1 to 65535"])
    assert host.call("policy.get", guest="guest") == before and not kernel.differences(host.kernel())
    error = host.error("guest.attach", name="new", kind="netns", pid=guest.space.pid, networks=[{"name": "default"}],
                       policy={"allow": ["any"], "deny": ["nonsense"]})
    assert error.code == -32602 and error.data["field"] == "policy.deny[0]"
    assert attempt(guest, "tcp", peer.ip_address, 80) == "open"
    assert refused(guest, "tcp", peer.ip_address, 81) is True


@pytest.mark.parametrize("address", [topology.INTERNET, topology.INTERNET6])
def test_connections_that_run_go_on(host, internet, address):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", network="six")
    with servers.TcpServer(host.world.outside, 9, "::" if ":" in address else "0.0.0.0"), servers.connect(guest, address, 9) as sock:
        servers.read_line(sock)
        for options in (["--deny", "any"], ["--allow", "192.0.2.1"], [], ["--mode", "outbound", "--deny", "any"], ["--mode", "full"]):
            set_policy(host, *options)
            sock.sendall(b"x" * 5000)
            assert len(dns.receive_exactly(sock, 5000)) == 5000, options


def test_policy_follows_to_every_network(host, guest, peer):
    host.moat("net", "create", "blue")
    set_policy(host, "--allow", "192.0.2.1")
    host.moat("attach", "guest", "--network", "blue")
    other = host.attach_guest("other", network="blue")
    with servers.TcpServer(other, 80, name="other"):
        assert refused(guest, "tcp", other.ip_address, 80) is True
        host.moat("detach", "guest", "--network", "default")
        assert refused(guest, "tcp", other.ip_address, 80) is True
        set_policy(host)
        assert attempt(guest, "tcp", other.ip_address, 80) == "open"


def test_nothing_stays_of_a_guest_that_is_gone(host, internet):
    def mentions():
        return re.findall(r"guest\d+_[0-9a-f]{16}_\w+", host.run("nft", "list", "table", "inet", "moat"))

    first = host.attach_guest("first", "--deny", "any")
    assert mentions()
    address = first.ip_address
    first.end()
    assert not mentions()
    second = host.attach_guest("second", network=f"default,ip={address}")
    assert attempt(second, "tcp", topology.INTERNET, 7) == "open"


@pytest.mark.parametrize("crash", [False, True], ids=["stop", "kill"])
def test_policy_outlives_moatd(host, guest, peer, crash):
    set_policy(host, "--allow", f"{peer.ip_address}:80")
    host.crash() if crash else host.stop()
    assert refused(guest, "tcp", topology.INTERNET, 7) is True
    assert attempt(guest, "tcp", peer.ip_address, 80) == "open"
    host.start()
    assert refused(guest, "tcp", topology.INTERNET, 7) is True
    assert attempt(guest, "tcp", peer.ip_address, 80) == "open"


def test_a_lost_table_comes_back_with_the_policies(host, guest, peer):
    set_policy(host, "--allow", f"{peer.ip_address}:80")
    host.run("nft", "flush", "ruleset", check=False)
    host.run("nft", "delete", "table", "inet", "moat", check=False)
    wait_for(lambda: attempt(guest, "tcp", topology.INTERNET, 7, 0.5) == "ECONNREFUSED", 2, "the policy")
    assert attempt(guest, "tcp", peer.ip_address, 80) == "open"


@pytest.mark.parametrize("step", ["nat.commit", "nat.switch"])
def test_a_refused_change_leaves_the_old_rules_in_force(machine, internet, step):
    machine.start()
    guest = machine.attach_guest("guest", "--allow", f"{topology.INTERNET}:7/tcp")
    machine.restart(env={"MOAT_FAULT": f"{step}:1"})
    kernel, before = machine.kernel(), machine.call("policy.get", guest="guest")
    machine.refused("policy", "set", "guest", "--allow", "any", says="injected")
    assert machine.call("policy.get", guest="guest") == before
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert refused(guest, "udp", topology.INTERNET, 7) is True
    wait_for(lambda: not kernel.differences(machine.kernel()), 3, "nothing to stay of the new rules")
    set_policy(machine, "--allow", "any")
    assert attempt(guest, "udp", topology.INTERNET, 7) == "open"


def test_rules_are_there_before_the_link(host, internet):
    """A program that was there before tries all the time, from before its first link on."""
    for i in range(20):
        space = host.guest_space("eager")
        stop, outcomes = threading.Event(), []

        def try_on():
            while not stop.is_set():
                outcomes.append(attempt(space, "tcp", topology.INTERNET, 7, 0.5))

        eager = threading.Thread(target=try_on)
        eager.start()
        wait_for(lambda: "ENETUNREACH" in outcomes, 5, "the first tries to fail for want of a link")
        host.call("guest.attach", name="eager", kind="netns", pid=space.pid, networks=[{"name": "default"}],
                  **({"policy": {"allow": ["192.0.2.1"], "deny": []}} if i % 4 else {}))
        wanted = "ECONNREFUSED" if i % 4 else "open"  # each fourth is the control
        wait_for(lambda: outcomes.count(wanted) > 3, 5, lambda: f"{wanted}; instead: {set(outcomes)}")
        stop.set()
        eager.join()
        assert ("open" in outcomes) == (wanted == "open"), set(outcomes)
        host.call("guest.detach", name="eager")


# No open instant

def test_no_instant_is_more_open_than_either(host, guest, peer):
    """Two policies that both deny port 81 and allow port 80 take turns, a thousand times."""
    policies = [{"allow": [f"{peer.ip_address}:80"]}, {"deny": [f"{peer.ip_address}:81", "192.0.2.0/24"]}]
    host.call("policy.set", guest="guest", **policies[0])
    stop, opened, closed, tries = threading.Event(), [], [], [0]

    def poll(port, wanted, wrong):
        while not stop.is_set():
            outcome = attempt(guest, "tcp", peer.ip_address, port, 3)
            tries[0] += 1
            if outcome != wanted:
                wrong.append(outcome)

    threads = [threading.Thread(target=poll, args=row) for row in ((81, "ECONNREFUSED", opened), (80, "open", closed))]
    for thread in threads:
        thread.start()
    for i in range(1000):
        host.call("policy.set", guest="guest", **policies[i % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert tries[0] > 100 and opened == [] and closed == [], (tries, opened[:3], closed[:3])


def test_a_large_policy_is_set_fast(host, guest, peer):
    rules = [f"10.{i % 250}.{i // 250}.0/24:{443 + i % 3}" for i in range(500)]
    rules += [f"{peer.ip_address}:80"]
    best = 1e9
    for _ in range(5):
        began = time.monotonic()
        host.call("policy.set", guest="guest", allow=rules)
        best = min(best, time.monotonic() - began)
        host.call("policy.set", guest="guest", allow=rules[:1])
    print(f"500 rules in {best * 1000:.1f} ms")
    host.call("policy.set", guest="guest", allow=rules)
    assert attempt(guest, "tcp", peer.ip_address, 80) == "open"
    assert refused(guest, "tcp", peer.ip_address, 81) is True
    assert best < 0.1
