# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody else takes rules of ours away. They are back soon; what came about meanwhile is put right too.

Where the kernel has no owned tables a firewall's reload flushes ours. moatd is held still meanwhile, so that the gap
lasts as long as a test needs. The other firewall tracks connections and translates, as they all do: else the kernel
would have no memory of the gap at all.
"""

import contextlib
import os
import signal
import socket

import pytest

import dns
import servers
import topology
from servers import greeting, read_line
from wait import wait_for

OTHER_FIREWALL = """
    table inet other {
        chain forward { type filter hook forward priority 10; ct state established,related accept; }
        chain input { type filter hook input priority 10; ct state established,related accept; }
        chain post { type nat hook postrouting priority 110; }
    }
    """
BY_THE_RELAY = ("guest", "10.88.0.1")
FLUSH = "flush ruleset\n" + OTHER_FIREWALL


@pytest.fixture
def host(machine, internet):
    machine.start(env={"MOAT_FAULT": "nat.owner"})
    machine.nft(OTHER_FIREWALL)
    yield machine
    machine.run("nft", "delete", "table", "inet", "other", check=False)


@pytest.fixture
def way_back(world):
    """The lan has a way to the guests' addresses: what is not translated gets there and back."""
    world.lan.ip("route", "add", "10.64.0.0/10", "via", topology.HOST)
    yield
    world.lan.ip("route", "del", "10.64.0.0/10")


@contextlib.contextmanager
def gap(host, change=FLUSH):
    """Until the end of the block the rules are as somebody else left them."""
    os.kill(host.daemon.pid, signal.SIGSTOP)
    try:
        host.nft(change)
        yield
    finally:
        os.kill(host.daemon.pid, signal.SIGCONT)
    wait_for(lambda: "table inet moat" in host.run("nft", "list", "tables"), 5, "the table")
    host.call("system.status")  # answered after the turn in which the table came back


def entries(host, *parts):
    return [line for line in host.run("cat", "/proc/net/nf_conntrack").splitlines() if all(part in line for part in parts)]


def speaks(sock):
    """The other side answers; what it said before does not count."""
    try:
        sock.settimeout(1)
        sock.sendall(b"x")
        return bool(sock.recv(100))
    except OSError:
        return False


def open_tcp(net, address, port):
    """A connection that has been answered."""
    sock = servers.connect(net, address, port)
    assert read_line(sock), "no greeting"
    assert speaks(sock)
    return sock


def ends(host, sock):
    wait_for(lambda: not speaks(sock), 5, "the end of a connection that the rules don't allow")


class Udp:
    """A client that keeps its port: all that it sends is one flow."""

    def __init__(self, net, address, port):
        self.socket = net.socket(servers.family_of(address), socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.socket.settimeout(0.3)
        self.number = 0

    def ask(self):
        """(server's name, the client's address as the server sees it), or None where nobody answers in a second.

        Asks again each 0.3 s, as programs do; an answer counts for its own question only.
        """
        for _ in range(4):
            self.number += 1
            try:
                self.socket.send(b"%d" % self.number)
                while True:
                    words = self.socket.recv(1000).split()
                    if words[3] == b"%d" % self.number:
                        return words[0].decode(), words[1].decode()
            except OSError:
                continue
        return None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()


# What goes on

def test_what_was_opened_rightly_goes_on(host, lan, internet):
    """Every kind of connection that moat translates or allows, and the host's own and others' beside it."""
    guest = host.attach_guest("guest", "-p", "8080:80", "--allow", f"{topology.LAN}:9000", "--allow", topology.INTERNET)
    peer = host.attach_guest("peer")
    with servers.TcpServer(guest, 80, name="guest"), servers.TcpServer(lan, 9000, name="lan"), \
            servers.TcpServer(host, 7777, name="host"), servers.TcpServer(peer, 90, name="peer"), \
            servers.UdpServer(lan, 9001, name="lan"), contextlib.ExitStack() as stack:
        open_now = {
            "guest to outside": open_tcp(guest, topology.INTERNET, 7),
            "guest to lan": open_tcp(guest, topology.LAN, 9000),
            "lan to published": open_tcp(lan, topology.HOST, 8080),
            "host to published": open_tcp(host, "127.0.0.1", 8080),
            "peer to published": open_tcp(peer, topology.HOST, 8080),
            "host to guest": open_tcp(host, guest.ip_address, 80),
            "guest to peer by its own": open_tcp(host, peer.ip_address, 90),
            "lan to host": open_tcp(lan, topology.HOST, 7777),
            "host to lan": open_tcp(host, topology.LAN, 9000),
        }
        for sock in open_now.values():
            stack.enter_context(sock)
        flow = stack.enter_context(Udp(peer, topology.LAN, 9001))
        assert flow.ask() == ("lan", topology.HOST)
        before = set(entry_names(host))
        with gap(host):
            pass
        assert before <= set(entry_names(host)), "an entry of before the gap is gone"
        assert {name: speaks(sock) for name, sock in open_now.items()} == dict.fromkeys(open_now, True)
        assert flow.ask() == ("lan", topology.HOST)
        assert "connections came about" not in host.daemon.log()


def entry_names(host):
    """Each entry by its addresses and ports."""
    for line in entries(host):
        yield " ".join(word for word in line.split() if word.split("=")[0] in ("src", "dst", "sport", "dport"))


def test_what_is_gone_from_the_address_of_a_name_goes_on(host, internet):
    """A connection that a domain rule opened outlives the opening, and the gap."""
    host.configure("[policy]\ngrace = 1\n")
    host.restart(env={"MOAT_FAULT": "nat.owner"})
    guest = host.attach_guest("guest", "--allow", "www.example.org:7")
    internet.dns.table[("www.example.org", "A")] = [
        lambda request, over_tcp: dns.DnsServer.reply(request, [topology.INTERNET], dns.NOERROR, over_tcp, 0)]
    assert dns.ask(guest, guest.gateway, "www.example.org", "A").data == [topology.INTERNET]
    with open_tcp(guest, topology.INTERNET, 7) as sock:
        wait_for(lambda: servers.unreachable(guest, "tcp", topology.INTERNET, 7), 10, "the end of the opening")
        with gap(host):
            pass
        assert speaks(sock)


# What ends

def test_policy(host, lan, way_back):
    guest = host.attach_guest("guest", "--allow", f"{topology.LAN}:9001")
    with servers.TcpServer(lan, 9000, name="denied"), servers.TcpServer(lan, 9001, name="allowed"):
        assert servers.unreachable(guest, "tcp", topology.LAN, 9000)
        with open_tcp(guest, topology.LAN, 9001) as rightly:
            with gap(host):
                denied = open_tcp(guest, topology.LAN, 9000)
            with denied:
                ends(host, denied)
                assert entries(host, "dport=9000", "ESTABLISHED") == []
            assert speaks(rightly)
        assert servers.unreachable(guest, "tcp", topology.LAN, 9000)
        assert greeting(guest, "tcp", topology.LAN, 9001) == ("allowed", topology.HOST)
    wait_for(lambda: "1 connections came about" in host.daemon.log(), 3, "the log's word")


def test_separate_networks(host):
    host.call("network.create", name="one")
    host.call("network.create", name="two")
    a, b = host.attach_guest("a", network="one"), host.attach_guest("b", network="two")
    with servers.TcpServer(b, 80, name="b"):
        assert servers.unreachable(a, "tcp", b.ip_address, 80)
        with gap(host):
            sock = open_tcp(a, b.ip_address, 80)
        with sock:
            ends(host, sock)


def test_a_passage_is_no_gap(host):
    host.call("network.create", name="one")
    host.call("network.create", name="two")
    a, b = host.attach_guest("a", network="one"), host.attach_guest("b", network="two")
    host.moat("net", "allow", "one", "two", "80")
    with servers.TcpServer(b, 80, name="b"), servers.TcpServer(b, 81, name="other"):
        with open_tcp(a, b.ip_address, 80) as before:
            with gap(host):
                allowed, other = open_tcp(a, b.ip_address, 80), open_tcp(a, b.ip_address, 81)
            with allowed, other:
                ends(host, other)
                assert speaks(allowed) and speaks(before)


def test_isolated_guests(host):
    host.call("network.create", name="apart", isolated=True)
    a, b = host.attach_guest("a", network="apart"), host.attach_guest("b", network="apart")
    with servers.TcpServer(b, 80, name="b"):
        assert servers.unreachable(a, "tcp", b.ip_address, 80)
        with gap(host):
            sock = open_tcp(a, b.ip_address, 80)
        with sock:
            ends(host, sock)


@pytest.mark.parametrize("source", ["lan", "host", "peer"])
def test_a_closed_guest(host, world, way_back, source):
    """Mode outbound: nobody opens a connection to it, and those of the gap end; its own go on."""
    guest = host.attach_guest("guest", "--mode", "outbound")
    net = {"lan": world.lan, "host": host}.get(source) or host.attach_guest("peer")
    with servers.TcpServer(guest, 80, name="guest"), open_tcp(guest, topology.INTERNET, 7) as own:
        assert servers.unreachable(net, "tcp", guest.ip_address, 80)
        with gap(host):
            sock = open_tcp(net, guest.ip_address, 80)
        with sock:
            ends(host, sock)
        assert speaks(own)


def test_past_the_published_ports(host, lan, way_back):
    guest = host.attach_guest("guest", "-p", "8080:80")
    with servers.TcpServer(guest, 81, name="guest"):
        assert servers.unreachable(lan, "tcp", guest.ip_address, 81)
        with gap(host):
            sock = open_tcp(lan, guest.ip_address, 81)
        with sock:
            ends(host, sock)


def test_services_of_the_host(host):
    guest = host.attach_guest("guest")
    host.call("network.create", name="near", host_access=True)
    near = host.attach_guest("near", network="near")
    with servers.TcpServer(host, 7777, name="host"):
        assert servers.unreachable(guest, "tcp", guest.gateway, 7777)
        with gap(host):
            socks = [open_tcp(guest, guest.gateway, 7777), open_tcp(guest, topology.HOST, 7777)]
            allowed = open_tcp(near, near.gateway, 7777)
        with socks[0], socks[1], allowed:
            for sock in socks:
                ends(host, sock)
            assert speaks(allowed)


def test_an_address_that_nobody_was_given(host, lan, way_back):
    """Anti-spoofing is gone too. The guest's own address, untranslated, is just as wrong on the lan."""
    guest = host.attach_guest("guest")
    guest.ip("address", "add", "10.88.77.77/16", "dev", "eth0")
    with servers.UdpServer(lan, 9000, name="lan"), guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("10.88.77.77", 0))
        sock.settimeout(1)
        with gap(host):
            sock.sendto(b"x", (topology.LAN, 9000))
            assert sock.recv(100).split()[1] == b"10.88.77.77", "the gap is none"
            assert entries(host, "src=10.88.77.77")
        wait_for(lambda: not entries(host, "src=10.88.77.77"), 5, "the end of it")


# What is led right

def test_datagrams_to_a_published_port(host, lan):
    """In the gap they go to the host itself, whose relay serves them under its own address. The client never changes
    its port nor waits: one flow for ever."""
    guest = host.attach_guest("guest", "-p", "8080:80/udp")
    with servers.UdpServer(guest, 80, name="guest"), Udp(lan, topology.HOST, 8080) as client, \
            Udp(lan, topology.HOST, 8080) as steady:
        assert steady.ask() == ("guest", topology.LAN)
        with gap(host):
            wait_for(lambda: client.ask() == BY_THE_RELAY, 5, "the relay's answer")
            assert entries(host, "udp", f"src={topology.HOST} dst={topology.LAN} sport=8080"), "it was translated"
        wait_for(lambda: client.ask() == ("guest", topology.LAN), 5, "the translation of what began in the gap")
        assert steady.ask() == ("guest", topology.LAN)


@pytest.mark.parametrize("address, host_address", [(topology.INTERNET, topology.HOST), (topology.INTERNET6, topology.HOST6)],
                         ids=["ipv4", "ipv6"])
def test_datagrams_on_the_way_out(host, world, address, host_address):
    host.call("network.create", name="both", ipv6=True)
    guest = host.attach_guest("guest", network="both")
    with servers.UdpServer(world.outside, 70, address, name="far"), Udp(guest, address, 70) as client:
        with gap(host):
            wait_for(lambda: client.ask() or entries(host, "udp", "dport=70", "[UNREPLIED]"), 5, "the untranslated packet")
            assert client.ask() is None, "nobody outside has a way back to a private address"
        wait_for(lambda: client.ask() == ("far", host_address), 5, "the translation of what began in the gap")


def test_what_another_firewall_translated(host, lan):
    """A guest's way out that somebody else's masquerade took over is not ended, but a forbidden one is."""
    free, bound = host.attach_guest("free"), host.attach_guest("bound", "--allow", topology.INTERNET)
    with servers.TcpServer(lan, 9000, name="lan"):
        with gap(host, FLUSH + "table ip masq { chain post { type nat hook postrouting priority 100; oifname eth0 masquerade; } }"):
            allowed, denied = open_tcp(free, topology.LAN, 9000), open_tcp(bound, topology.LAN, 9000)
        host.nft("delete table ip masq")
        with allowed, denied:
            ends(host, denied)
            assert speaks(allowed)


# Parts of the table

def test_one_element(host, lan):
    guest = host.attach_guest("guest", "-p", "8080:80/udp", "-p", "8081:80/udp")
    with servers.UdpServer(guest, 80, name="guest"), Udp(lan, topology.HOST, 8080) as client, \
            Udp(lan, topology.HOST, 8081) as other:
        with gap(host, "delete element inet moat pub4 { udp . 8080 }\n"):
            wait_for(lambda: client.ask() == BY_THE_RELAY, 5, "the relay's answer")
            assert other.ask() == ("guest", topology.LAN)
        wait_for(lambda: client.ask() == ("guest", topology.LAN), 5, "the element")
        assert other.ask() == ("guest", topology.LAN)


def test_one_chain(host, lan):
    guest = host.attach_guest("guest", "--allow", topology.INTERNET)
    with servers.TcpServer(lan, 9000, name="lan"):
        with gap(host, "flush chain inet moat guest_policy\n"):
            sock = open_tcp(guest, topology.LAN, 9000)
        with sock:
            ends(host, sock)


# While moatd was away

def test_a_gap_while_moatd_was_away(host, lan, way_back):
    guest = host.attach_guest("guest", "--allow", topology.INTERNET, "-p", "8080:80/udp")
    with servers.TcpServer(lan, 9000, name="lan"), servers.UdpServer(guest, 80, name="guest"), \
            open_tcp(guest, topology.INTERNET, 7) as rightly, Udp(lan, topology.HOST, 8080) as client:
        host.crash()
        host.nft(FLUSH)
        with open_tcp(guest, topology.LAN, 9000) as sock:
            wait_for(lambda: client.ask() == BY_THE_RELAY, 5, "the relay's answer")
            host.start(env={"MOAT_FAULT": "nat.owner"})
            ends(host, sock)
        assert speaks(rightly)
        assert client.ask() == ("guest", topology.LAN)


def test_no_gap_no_cut(host, lan):
    """`policy set` lets connections go on, and a restart without any harm done to the table does too."""
    guest = host.attach_guest("guest", "--allow", "any")
    with servers.TcpServer(lan, 9000, name="lan"), open_tcp(guest, topology.LAN, 9000) as sock:
        host.moat("policy", "set", "guest", "--deny", f"{topology.LAN}")
        assert speaks(sock)
        host.restart(env={"MOAT_FAULT": "nat.owner"})
        assert speaks(sock)
        host.restart(crash=True, env={"MOAT_FAULT": "nat.owner"})
        assert speaks(sock)


def test_it_is_tried_again(host, lan, way_back):
    """The kernel refuses the list of connections: the repair is not done before it has it."""
    guest = host.attach_guest("guest", "--allow", topology.INTERNET)
    host.restart(env={"MOAT_FAULT": "nat.owner,conntrack.cut"})
    with servers.TcpServer(lan, 9000, name="lan"):
        with gap(host):
            sock = open_tcp(guest, topology.LAN, 9000)
        with sock:
            ends(host, sock)
    assert "repair: " in host.daemon.log()
