# SPDX-License-Identifier: GPL-2.0-or-later
"""What is denied can be told of (--log-denied), answered by silence (--drop), and ended where it runs (--cut)."""

import socket
import threading

import pytest

import dns
import servers
import topology
from test_drops import drops
from test_policy import attempt
from wait import wait_for


NAME = "www.example.org"


@pytest.fixture
def watcher(host):
    return host.rpc().subscribe()


@pytest.fixture
def guest(host, internet):
    return host.attach_guest("guest")


@pytest.fixture
def peer(host):
    peer = host.attach_guest("peer")
    with servers.TcpServer(peer, 80, name="peer"), servers.UdpServer(peer, 80, name="peer"):
        yield peer


def set_policy(host, *options):
    host.moat("policy", "set", "guest", *options)


def denied(watcher):
    return watcher.event_where(lambda event: event["type"] == "connection.denied")


def no_more(watcher):
    """No denial comes for longer than they are gathered."""
    events = []
    while not watcher.silent(1.5):
        events.append(watcher.next_event())
    return not [event for event in events if event["type"] == "connection.denied"]


# --log-denied

@pytest.mark.parametrize("protocol, address, port", [
    ("tcp", topology.INTERNET, 7), ("udp", topology.INTERNET, 7), ("tcp", topology.LAN, 443)])
def test_an_event_says_what_was_denied(host, guest, watcher, protocol, address, port):
    set_policy(host, "--deny", "192.0.2.0/24", "--deny", "any", "--log-denied")
    attempt(guest, protocol, address, port, 0.5)
    event = denied(watcher)
    assert (event["guest"], event["network"]) == ("guest", "default")
    assert event["denied"] == {"protocol": protocol, "ip": address, "port": port, "name": None, "rule": "deny any", "count": 1}
    assert event["detail"] == f"{protocol} {address}:{port}: deny any"


def test_it_says_which_rule_it_was(host, guest, peer, watcher):
    set_policy(host, "--deny", "192.0.2.1", "--deny", "@private:81", "--deny", f"{peer.ip_address}/icmp", "--log-denied")
    attempt(guest, "tcp", peer.ip_address, 81)
    assert denied(watcher)["denied"]["rule"] == "deny @private:81"
    guest.ping(peer.ip_address, timeout=0.3)
    event = denied(watcher)["denied"]
    assert (event["protocol"], event["port"], event["rule"]) == ("icmp", 0, f"deny {peer.ip_address}/icmp")
    set_policy(host, "--allow", f"{peer.ip_address}:80", "--log-denied")
    attempt(guest, "tcp", topology.INTERNET, 7)
    event = denied(watcher)
    assert event["denied"]["rule"] is None and event["detail"] == f"tcp {topology.INTERNET}:7: not allowed"


def test_ipv6_is_told_of_as_well(host, internet, watcher):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", "--allow", "192.0.2.1", "--log-denied", network="six")
    attempt(guest, "tcp", topology.INTERNET6, 7)
    event = denied(watcher)
    assert event["network"] == "six" and event["denied"]["ip"] == topology.INTERNET6 and event["denied"]["port"] == 7
    assert event["detail"] == f"tcp [{topology.INTERNET6}]:7: not allowed"


def test_bounds_of_the_network_are_told_of_too(host, internet, watcher, bridge_nf):
    """Of a bridged guest without any rule: the host's services, another network, out of an internal one."""
    guest = host.attach_guest("guest", "--log-denied")
    host.moat("net", "create", "blue")
    other = host.attach_guest("other", network="blue")
    for address, port in ((guest.gateway, 22), (other.ip_address, 80)):
        assert attempt(guest, "tcp", address, port) == "ECONNREFUSED"
        event = denied(watcher)
        assert event["guest"] == "guest" and event["denied"] == {
            "protocol": "tcp", "ip": address, "port": port, "name": None, "rule": None, "count": 1}


@pytest.mark.parametrize("rules, rule", [
    (["--deny", "any:7"], "deny any:7"), (["--allow", "www.example.org:80"], None),
    (["--allow", ".example.org", "--deny", "www.example.org:7"], "deny www.example.org:7")],
    ids=["by address", "by name, another port", "denied by name"])
def test_the_name_that_led_there_is_told(host, guest, watcher, rules, rule):
    """With domain rules and without; of this guest's lookup, not of another's."""
    set_policy(host, *rules, "--log-denied")
    dns.ask(host.attach_guest("other", "--deny", "any:7", "--log-denied"), guest.gateway, NAME)
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "ECONNREFUSED"
    assert denied(watcher)["denied"]["name"] is None, "nothing was looked up"
    assert dns.ask(guest, guest.gateway, NAME).data == [topology.INTERNET]
    assert attempt(guest, "udp", topology.INTERNET, 7) == "EHOSTUNREACH"
    event = denied(watcher)
    assert (event["denied"]["name"], event["denied"]["rule"]) == (NAME, rule)
    assert event["detail"] == f"udp {topology.INTERNET}:7 ({NAME}): {rule or 'not allowed'}"


def test_the_name_asked_last_is_told_in_both_families(host, internet, watcher):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", "--deny", "any:7", "--log-denied", network="six")
    internet.dns.add("mirror.example.org", "AAAA", topology.INTERNET6)
    for name in (NAME, "mirror.example.org"):
        assert dns.ask(guest, guest.gateway, name, "AAAA").data == [topology.INTERNET6]
    assert attempt(guest, "tcp", topology.INTERNET6, 7) == "ECONNREFUSED"
    event = denied(watcher)
    assert event["denied"]["name"] == "mirror.example.org"
    assert event["detail"] == f"tcp [{topology.INTERNET6}]:7 (mirror.example.org): deny any:7"


def test_others_are_not_told_of(host, guest, peer, watcher):
    set_policy(host, "--deny", "any", "--log-denied")
    host.moat("policy", "set", "peer", "--deny", "any")
    attempt(peer, "tcp", topology.INTERNET, 7)
    set_policy(host, "--deny", "any")
    attempt(guest, "tcp", topology.INTERNET, 7)
    assert no_more(watcher)
    set_policy(host, "--deny", "any", "--log-denied")
    attempt(guest, "tcp", topology.INTERNET, 7)
    assert denied(watcher)["guest"] == "guest"


def test_what_is_allowed_makes_no_event(host, guest, peer, watcher):
    set_policy(host, "--allow", f"{peer.ip_address}:80", "--log-denied")
    for protocol in ("tcp", "udp"):
        assert attempt(guest, protocol, peer.ip_address, 80) == "open"
    assert no_more(watcher)


def test_many_attempts_are_few_events(host, guest, watcher):
    """A flood to one destination is told of once a second; what is counted is all of it."""
    set_policy(host, "--deny", "any", "--drop", "--log-denied")
    sock = guest.socket(kind=socket.SOCK_DGRAM)
    for _ in range(2000):
        sock.sendto(b"x", (topology.INTERNET, 9))
    sock.close()
    event = denied(watcher)
    assert event["denied"]["count"] == 1
    seen = [event]
    while not watcher.silent(2):
        seen.append(watcher.next_event())
    seen = [event for event in seen if event["type"] == "connection.denied"]
    assert 1 < len(seen) < 5 and sum(event["denied"]["count"] for event in seen) < 200, seen
    assert "times" in seen[1]["detail"]
    assert drops(host, "guest")["connections"] >= 2000


def test_one_guest_does_not_drown_another(host, guest, peer, watcher):
    set_policy(host, "--deny", "any", "--drop", "--log-denied")
    host.moat("policy", "set", "peer", "--deny", "any", "--log-denied")
    sock = guest.socket(kind=socket.SOCK_DGRAM)
    for port in range(3000):
        sock.sendto(b"x", (topology.INTERNET, 1000 + port))
    sock.close()
    attempt(peer, "tcp", topology.INTERNET, 7)
    assert watcher.event_where(lambda event: event["guest"] == "peer" and event["type"] == "connection.denied")


def test_events_prints_it(host, guest):
    set_policy(host, "--deny", "any", "--log-denied")
    job, lines = host.spawn("events"), []

    def read():
        for line in job.process.stdout:
            lines.append(line)

    def told(protocol, port, text):
        """Tries until it is told of: at first nobody may be listening yet."""
        def there():
            attempt(guest, protocol, topology.INTERNET, port, 0.2)
            return [line for line in lines if f"{protocol} {topology.INTERNET}:{port}{text}: deny any" in line]

        line = wait_for(there, 5, lambda: f"{protocol}; told were: {lines}", every=0.1)[0]
        assert "connection.denied guest=guest network=default" in line

    reader = threading.Thread(target=read)
    reader.start()
    try:
        told("tcp", 7, "")
        told("udp", 7, "")
        dns.ask(guest, guest.gateway, NAME)
        told("tcp", 80, f" ({NAME})")
    finally:
        job.process.kill()
        reader.join()
        job.close()


def test_from_the_start_and_over_a_restart(host, internet):
    guest = host.attach_guest("guest", "--deny", "any", "--log-denied", "--drop")
    host.restart(crash=True)
    watcher = host.rpc().subscribe()
    assert attempt(guest, "tcp", topology.INTERNET, 7, 0.3) == "silence"
    assert denied(watcher)["denied"]["rule"] == "deny any"
    shown = host.call("policy.get", guest="guest")
    assert shown["drop"] is True and shown["log_denied"] is True
    assert host.moat("policy", "show", "guest").out.splitlines() == ["mode full", "deny any", "log-denied", "drop"]


# --drop

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_drop_is_silence(host, guest, peer, protocol, bridge_nf):
    set_policy(host, "--deny", f"{peer.ip_address}", "--drop")
    assert attempt(guest, protocol, peer.ip_address, 80, 0.5) == "silence"
    assert attempt(guest, protocol, topology.INTERNET, 7) == "open"
    before = drops(host, "guest")["connections"]
    assert before >= 1
    set_policy(host, "--deny", f"{peer.ip_address}")
    assert wait_for(lambda: attempt(guest, protocol, peer.ip_address, 80, 0.5) != "silence", 3, "a refusal")
    assert "drop" not in host.call("policy.get", guest="guest")


def test_drop_in_both_families_and_by_run(host, internet):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.run_guest("guest", "--network", "six", "--deny", "any", "--drop")
    for address in (topology.INTERNET, topology.INTERNET6):
        assert attempt(guest, "tcp", address, 7, 0.3) == "silence"


# --cut

def talk(sock):
    """True where the connection still carries something."""
    try:
        sock.sendall(b"x")
        return sock.recv(1) == b"x"
    except OSError:
        return False


@pytest.fixture
def talks(guest, peer, internet):
    """Two connections that run: to the internet, and to the peer."""
    with servers.connect(guest, topology.INTERNET, 7) as outside, servers.connect(guest, peer.ip_address, 80) as inside:
        for sock in (outside, inside):
            servers.read_line(sock)
            sock.settimeout(5)
        yield outside, inside


def test_without_cut_they_go_on(host, talks):
    set_policy(host, "--allow", "192.0.2.1", "--mode", "outbound")
    assert talk(talks[0])


def test_cut_ends_what_is_no_longer_allowed_and_nothing_else(host, guest, peer):
    set_policy(host, "--deny", "192.0.2.1")  # a routed port from the start, where all connections are known
    with servers.connect(guest, topology.INTERNET, 7) as outside, servers.connect(guest, peer.ip_address, 80) as inside:
        for sock in (outside, inside):
            servers.read_line(sock)
            sock.settimeout(5)
        set_policy(host, "--deny", topology.INTERNET, "--cut")
        assert not talk(outside) and talk(inside)
        set_policy(host, "--allow", "192.0.2.1", "--cut")
        assert not talk(inside)


@pytest.mark.parametrize("family", [4, 6])
def test_cut_by_allow_rules_and_for_udp(host, internet, family):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", "--deny", "192.0.2.1", network="six")
    address, any_port = (topology.INTERNET, "{}:7") if family == 4 else (topology.INTERNET6, "[{}]:7")
    with servers.TcpServer(host.world.outside, 9, "0.0.0.0" if family == 4 else "::", name="o"), \
            servers.UdpServer(host.world.outside, 9, "0.0.0.0" if family == 4 else "::", name="o"), \
            guest.socket(servers.family_of(address), socket.SOCK_DGRAM) as udp, servers.connect(guest, address, 9) as tcp:
        servers.read_line(tcp)
        tcp.settimeout(5)
        udp.settimeout(2)
        udp.connect((address, 9))
        udp.send(b"1")
        assert udp.recv(100)
        set_policy(host, "--allow", any_port.format(address), "--cut")
        assert not talk(tcp)
        with pytest.raises(OSError):
            for _ in range(5):
                udp.send(b"2")
                udp.recv(100)


def test_cut_with_mode_outbound_ends_what_others_opened(host, guest, peer):
    set_policy(host, "--deny", "192.0.2.1")
    with servers.TcpServer(guest, 80, name="guest"), servers.connect(peer, guest.ip_address, 80) as sock:
        servers.read_line(sock)
        sock.settimeout(5)
        set_policy(host, "--mode", "outbound", "--cut")
        assert not talk(sock)
    assert attempt(guest, "tcp", peer.ip_address, 80) == "open"


def test_cut_of_others_is_none_of_ours(host, guest, peer, talks):
    with servers.connect(peer, topology.INTERNET, 7) as other:
        servers.read_line(other)
        other.settimeout(5)
        set_policy(host, "--deny", "any", "--cut")
        assert talk(other) and not talk(talks[0])


def test_net_deny_cut(host, internet):
    for name in ("front", "back"):
        host.moat("net", "create", name)
    web, db = host.attach_guest("web", network="front"), host.attach_guest("db", network="back")
    host.moat("net", "allow", "front", "back", "80-81")
    with servers.TcpServer(db, 80, name="db"), servers.TcpServer(db, 81, name="db"), \
            servers.connect(web, db.ip_address, 80) as one, servers.connect(web, db.ip_address, 81) as two:
        for sock in (one, two):
            servers.read_line(sock)
            sock.settimeout(5)
        host.moat("net", "deny", "front", "back", "80", "--cut")
        assert not talk(one) and talk(two)
        host.moat("net", "deny", "front", "back", "--cut")
        assert not talk(two)
