# SPDX-License-Identifier: GPL-2.0-or-later
"""moat policy learn: what a guest opens becomes the least policy for it."""

import signal
import subprocess

import pytest

import dns
import rpc
import servers
import topology
from test_policy import attempt
from wait import wait_for

NAME = "www.example.org"


@pytest.fixture
def guest(host, internet):
    return host.attach_guest("guest")


def is_learnt(host, guest="guest"):
    try:
        return host.call("policy.learned", guest=guest)
    except rpc.RpcError as error:
        assert error.reason == "not_found"
        return None


class Learning:
    """The recording over the RPC, as a program uses it."""

    def __init__(self, host, guest="guest"):
        self.connection = host.rpc()
        self.guest = guest
        self.connection.call("policy.learn", guest=guest, enabled=True)

    def now(self):
        return self.connection.call("policy.learned", guest=self.guest)

    def rules(self, count):
        """The rules, as soon as so many connections were seen."""
        wait_for(lambda: self.now()["connections"] >= count, 5, lambda: f"{count} connections; now {self.now()}")
        return self.now()["rules"]


def test_addresses_names_and_peers(host, guest, internet, bridge_nf):
    peer = host.attach_guest("peer")
    learning = Learning(host)
    with servers.TcpServer(peer, 80), servers.UdpServer(peer, 81):
        assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
        assert attempt(guest, "udp", topology.INTERNET, 7) == "open"
        assert attempt(guest, "tcp", peer.ip_address, 80) == "open"
        assert attempt(guest, "udp", peer.ip_address, 81) == "open"
        assert guest.ping(peer.ip_address)
        assert learning.rules(5) == [f"{peer.ip_address}:80/tcp", f"{peer.ip_address}:81/udp", f"{peer.ip_address}/icmp",
                                     f"{topology.INTERNET}:7"]
        dns.ask(guest, guest.gateway, NAME)
        assert dns.ask(guest, guest.gateway, "peer").data == [peer.ip_address]
        assert attempt(guest, "tcp", topology.INTERNET, 80, 0.2) != "ECONNREFUSED"
        rules = learning.rules(6)
        assert f"{NAME}:80/tcp" in rules and f"{peer.ip_address}:80/tcp" in rules
        host.call("policy.set", guest="guest", allow=rules)
        assert attempt(guest, "tcp", peer.ip_address, 80) == "open" and attempt(guest, "tcp", peer.ip_address, 82) == "ECONNREFUSED"


def test_a_command_for_a_while(host, guest, internet):
    job = host.spawn("policy", "learn", "guest", "--for", "1h")
    wait_for(lambda: is_learnt(host), 5, "the learning")
    assert host.error("policy.learn", guest="guest", enabled=True).reason == "in_use"
    dns.ask(guest, guest.gateway, NAME)
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    wait_for(lambda: host.call("policy.learned", guest="guest")["connections"] == 1, 5, "the connection")
    job.send(signal.SIGINT)
    outcome = job.finish()
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{NAME}:7/tcp\n", "")
    assert host.error("policy.learned", guest="guest").reason == "not_found"
    assert host.moat("policy", "learn", "guest", "--for", "1s").out == ""
    answer = host.moat("policy", "learn", "guest", "--for", "1", "--json").json
    assert answer["rules"] == [] and answer["connections"] == 0 and answer["complete"] and answer["seconds"] >= 1


def test_what_is_learnt_is_enough(host, internet):
    """A program runs under what was learnt of it, and under nothing less."""
    program = (f"import socket, time\nsocket.create_connection(('{NAME}', 7), 5).close()\n"
               f"socket.create_connection(('{topology.INTERNET}', 80), 5).close()\n")
    waiting = "import sys\nsys.stdin.readline()\n" + program + "sys.stdin.readline()\n"
    job = host.spawn("run", "-n", "pupil", "--", "python3", "-c", waiting, stdin=subprocess.PIPE)
    wait_for(lambda: "pupil" in host.guest_names(), 5, "the guest")
    learning = Learning(host, "pupil")
    job.write("go\n")
    rules = learning.rules(2)
    job.write("end\n")
    assert job.finish().code == 0
    assert rules == [f"{NAME}:7/tcp", f"{NAME}:80/tcp"]
    allowed = [word for rule in rules for word in ("--allow", rule)]
    host.moat("run", *allowed, "--", "python3", "-c", program)
    assert host.moat("run", *allowed[:2], "--", "python3", "-c", program, check=False).code == 1


def test_under_rules_only_what_they_allow_is_seen(host, guest, internet):
    host.call("policy.set", guest="guest", allow=[f"{topology.INTERNET}:7/tcp"])
    learning = Learning(host)
    assert attempt(guest, "tcp", topology.INTERNET, 80) == "ECONNREFUSED"
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert learning.rules(1) == [f"{topology.INTERNET}:7/tcp"]


def test_it_ends_with_its_connection_and_leaves_ports_as_they_were(host, guest, internet):
    def is_routed():
        interface = guest.endpoint()["host_interface"]
        return "master" not in host.ip_json("link", "show", "dev", interface)[0]

    assert not is_routed()
    with servers.connect(guest, topology.INTERNET, 7) as sock:
        servers.read_line(sock)
        learning = Learning(host)
        assert is_routed()
        sock.sendall(b"x" * 5000)
        assert len(dns.receive_exactly(sock, 5000)) == 5000
        learning.connection.close()
        wait_for(lambda: not is_routed(), 5, "the end of it")
        sock.sendall(b"x" * 5000)
        assert len(dns.receive_exactly(sock, 5000)) == 5000
    assert Learning(host).rules(0) == []


def test_a_guest_may_go_meanwhile(host, guest, internet):
    learning = Learning(host)
    guest.end()
    assert host.error("policy.learned", guest="guest").reason == "not_found"
    learning.connection.close()
    host.attach_guest("other")
    Learning(host, "other")


def test_refusals(host, guest):
    job = host.run_guest("alone", "--mode", "loopback")
    assert host.error("policy.learn", guest="alone", enabled=True).reason == "mode_forbids"
    assert host.error("policy.learn", guest="guest", enabled=False).reason == "not_found"
    job.end()
    before = host.sysctl("netfilter/nf_conntrack_events")
    host.sysctl("netfilter/nf_conntrack_events", 0)
    try:
        error = host.error("policy.learn", guest="guest", enabled=True)
        assert error.reason == "not_supported" and "nf_conntrack_events" in error.message
    finally:
        host.sysctl("netfilter/nf_conntrack_events", before)
    Learning(host)


def test_the_daemon_may_end_meanwhile(host, guest):
    job = host.spawn("policy", "learn", "guest")
    wait_for(lambda: is_learnt(host), 5, "the learning")
    host.stop()
    outcome = job.finish()
    assert outcome.code == 3 and "the daemon has ended" in outcome.err
    host.start()
