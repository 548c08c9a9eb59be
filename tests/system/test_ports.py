# SPDX-License-Identifier: GPL-2.0-or-later
"""Published ports: who reaches them, from where, by which address, and who does not."""

import contextlib
import re
import socket
import threading

import pytest

import servers
import topology
from netns import kill, process_name
from servers import greeting, unreachable
from wait import PATIENCE, Stopwatch, wait_for

PROTOCOLS = ["tcp", "udp"]
both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


def server(net, protocol, port, address="0.0.0.0", name="guest"):
    return (servers.TcpServer if protocol == "tcp" else servers.UdpServer)(net, port, address, name)


@contextlib.contextmanager
def published(host, *ports, name="web", network="default", serve=(("tcp", 80), ("udp", 80)), options=()):
    """A guest that serves, with its ports published."""
    guest = host.attach_guest(name, *[x for p in ports for x in ("-p", p)], *options, network=network)
    with contextlib.ExitStack() as stack:
        guest.servers = [stack.enter_context(server(guest, protocol, port)) for protocol, port in serve]
        yield guest


def bind_fails(net, protocol, address, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with net.socket(servers.family_of(address), kind) as sock:
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            if protocol == "tcp":
                sock.listen(1)
        except OSError:
            return True
        return False


def on_every_address(port="8080", guest="80"):
    return [f"{port}:{guest}/tcp", f"{port}:{guest}/udp"]


# From where

@both_protocols
def test_from_another_machine_with_the_clients_address(host, lan, protocol, bridge_nf):
    with published(host, *on_every_address()):
        assert greeting(lan, protocol, topology.HOST, 8080) == ("guest", topology.LAN)


@both_protocols
def test_from_the_internet_with_the_clients_address(host, outside, protocol, bridge_nf):
    with published(host, *on_every_address()):
        assert greeting(outside, protocol, topology.HOST, 8080) == ("guest", topology.INTERNET)


@both_protocols
def test_from_another_machine_by_ipv6(host, lan, protocol, bridge_nf):
    with published(host, *on_every_address()):
        assert greeting(lan, protocol, topology.HOST6, 8080)[0] == "guest"


@both_protocols
def test_from_the_host_by_each_of_its_addresses(host, protocol, bridge_nf):
    with published(host, *on_every_address()):
        for address in (topology.HOST, topology.HOST6, "10.88.0.1", "127.0.0.1", "127.0.0.53", "::1"):
            assert greeting(host, protocol, address, 8080)[0] == "guest", f"not reached through {address}"


@both_protocols
def test_from_the_host_by_an_address_that_came_later(host, lan, protocol):
    with published(host, *on_every_address()):
        host.ip("address", "add", "192.168.77.99/24", "dev", "eth0")
        try:
            assert greeting(lan, protocol, "192.168.77.99", 8080) == ("guest", topology.LAN)
            assert greeting(host, protocol, "192.168.77.99", 8080)[0] == "guest"
        finally:
            host.ip("address", "del", "192.168.77.99/24", "dev", "eth0")


@both_protocols
def test_every_address_of_one_family(host, lan, protocol):
    """0.0.0.0 and [::] as Docker has them: two guests share the number, each has its family."""
    with published(host, f"0.0.0.0:8080:80/{protocol}") as guest:
        assert guest.ports() == [{"host_ip": "0.0.0.0", "host_port": 8080, "guest_port": 80, "count": 1, "protocol": protocol}]
        assert greeting(lan, protocol, topology.HOST, 8080) == ("guest", topology.LAN)
        for address in (topology.HOST, "10.88.0.1", "127.0.0.1"):
            assert greeting(host, protocol, address, 8080)[0] == "guest", f"not reached through {address}"
        for net, address in ((lan, topology.HOST6), (host, topology.HOST6), (host, "::1")):
            assert unreachable(net, protocol, address, 8080), f"reached through {address}, published on IPv4 only"
        assert bind_fails(host, protocol, "127.0.0.1", 8080) and not bind_fails(host, protocol, "::1", 8080)
        other = host.attach_guest("other", "-p", f"[::]:8080:80/{protocol}")
        with server(other, protocol, 80, name="other"):
            for net, address in ((lan, topology.HOST6), (host, topology.HOST6), (host, "::1")):
                assert greeting(net, protocol, address, 8080)[0] == "other", f"not reached through {address}"
            assert greeting(lan, protocol, topology.HOST, 8080)[0] == "guest"
            host.restart(crash=True)
            assert greeting(lan, protocol, topology.HOST6, 8080)[0] == "other"
            assert greeting(host, protocol, "127.0.0.1", 8080)[0] == "guest"
        third = host.attach_guest("third")
        for address in ("", "0.0.0.0:", "[::]:", "[::1]:", "127.0.0.1:"):
            assert host.error("port.add", guest="third", ports=[f"{address}8080:80/{protocol}"]).reason == "port_in_use"
        assert third.ports() == []


@both_protocols
def test_from_a_neighbour_through_the_hosts_address(host, protocol, bridge_nf):
    with published(host, *on_every_address()):
        neighbour = host.attach_guest("neighbour")
        for address in (topology.HOST, "10.88.0.1"):
            assert greeting(neighbour, protocol, address, 8080)[0] == "guest", f"not reached through {address}"


@both_protocols
def test_from_the_guest_itself_through_the_hosts_address(host, protocol, bridge_nf):
    with published(host, *on_every_address()) as guest:
        for address in (topology.HOST, "10.88.0.1"):
            assert greeting(guest, protocol, address, 8080)[0] == "guest", f"not reached through {address}"


@both_protocols
def test_from_a_guest_of_another_network(host, protocol, bridge_nf):
    blue = host.call("network.create", name="blue")
    with published(host, *on_every_address()):
        other = host.attach_guest("other", network="blue")
        for address in (topology.HOST, blue["gateway"], "10.88.0.1"):
            assert greeting(other, protocol, address, 8080)[0] == "guest", f"not reached through {address}"


@both_protocols
def test_from_an_outbound_guest(host, protocol, bridge_nf):
    with published(host, *on_every_address()):
        strict = host.attach_guest("strict", "--mode", "outbound")
        assert greeting(strict, protocol, topology.HOST, 8080)[0] == "guest"


@both_protocols
def test_guest_of_a_second_network_of_the_publisher(host, lan, protocol):
    """A guest on two networks answers where it was asked, whichever carries its default route."""
    host.call("network.create", name="blue")
    with published(host, *on_every_address()) as guest:
        host.moat("attach", "web", "--network", "blue")
        assert len(guest.refresh().info["endpoints"]) == 2
        assert greeting(lan, protocol, topology.HOST, 8080)[0] == "guest"


@both_protocols
def test_many_clients_at_once(host, lan, protocol, bridge_nf):
    with published(host, *on_every_address()):
        seen = []

        def one():
            seen.append(greeting(lan, protocol, topology.HOST, 8080, 5))

        threads = [threading.Thread(target=one) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [("guest", topology.LAN)] * 40


def test_large_transfers_through_a_published_port(host, lan, bridge_nf):
    guest = host.attach_guest("web", "-p", "8080:80")
    with servers.HttpServer(guest, 80):
        count = 20_000_000
        for net, address in ((lan, topology.HOST), (lan, topology.HOST6), (host, "127.0.0.1"), (host, "::1")):
            assert len(servers.http_get(net, address, f"/bytes/{count}", 8080, 30)) == count, address
            assert servers.http_post(net, address, count, 8080) == f"{count} bytes\n", address


def test_half_closed_connections_through_the_relay(host):
    """[::1] goes through a relay: the end of one direction must not end the other."""
    guest = host.attach_guest("web", "-p", "8080:80")
    listener = servers.bound(guest, socket.SOCK_STREAM, "0.0.0.0", 80)
    with listener, servers.connect(host, "::1", 8080) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            received = b""
            while part := connection.recv(100):
                received += part
            assert received == b"question"
            connection.sendall(b"answer")
        answer = b""
        while part := client.recv(100):
            answer += part
        assert answer == b"answer"


def test_refused_connections_are_refused_through_the_relay(host, lan):
    """Nothing listens in the guest: a client is told so, and not kept waiting."""
    host.attach_guest("web", "-p", "8080:80")
    for net, address in ((host, "127.0.0.1"), (host, "::1"), (lan, topology.HOST), (lan, topology.HOST6)):
        with Stopwatch() as watch:
            with pytest.raises(OSError):
                servers.tcp_greeting(net, address, 8080)
        assert watch.ms < 1500 * PATIENCE, f"{address}: kept waiting for {watch.ms:.0f} ms"


# What is published

def test_single_port_is_tcp_by_default(host, lan):
    with published(host, "8080:80") as guest:
        assert guest.info["ports"] == [
            {"host_ip": None, "host_port": 8080, "guest_port": 80, "count": 1, "protocol": "tcp"}]
        assert greeting(lan, "tcp", topology.HOST, 8080)[0] == "guest"
        assert unreachable(lan, "udp", topology.HOST, 8080)


@both_protocols
def test_range(host, lan, protocol, bridge_nf):
    serve = [(protocol, port) for port in (7000, 7001, 7099)]
    with published(host, f"9000-9099:7000-7099/{protocol}", serve=serve) as guest:
        assert guest.info["ports"] == [
            {"host_ip": None, "host_port": 9000, "guest_port": 7000, "count": 100, "protocol": protocol}]
        for guest_server, port in zip(guest.servers, (9000, 9001, 9099)):
            before = len(guest_server.clients)
            for net, address in ((lan, topology.HOST), (host, "127.0.0.1"), (host, "::1")):
                assert greeting(net, protocol, address, port)[0] == "guest", f"{address}:{port}"
            assert len(guest_server.clients) > before, "led to another port of the guest"
        assert unreachable(lan, protocol, topology.HOST, 9100)
        assert unreachable(lan, protocol, topology.HOST, 8999)


def test_a_range_of_ten_thousand_ports_is_quick(host, lan):
    guest = host.attach_guest("web")
    with Stopwatch() as watch:
        host.call("port.add", guest="web", ports=["20000-29999:20000-29999"])
    assert watch.ms < 1000 * PATIENCE, f"{watch.ms:.0f} ms"
    for port in (20000, 25123, 29999):
        with server(guest, "tcp", port):
            assert greeting(lan, "tcp", topology.HOST, port)[0] == "guest"
            assert greeting(host, "tcp", "::1", port)[0] == "guest"
    with Stopwatch() as watch:
        host.call("port.remove", guest="web", ports=["20000-29999:20000-29999"])
    assert watch.ms < 1000 * PATIENCE, f"{watch.ms:.0f} ms"
    assert not bind_fails(host, "tcp", "0.0.0.0", 25123)


@both_protocols
def test_random_port_is_chosen_and_shown(host, lan, protocol):
    with published(host, f"80/{protocol}") as guest:
        entry, = guest.info["ports"]
        low, high = map(int, host.sysctl("ipv4/ip_local_port_range").split())
        assert low <= entry["host_port"] <= high
        assert greeting(lan, protocol, topology.HOST, entry["host_port"])[0] == "guest"
        assert str(entry["host_port"]) in host.moat("ps").out


def test_random_ports_differ(host):
    host.attach_guest("web", *["-p", "80"] * 20)
    chosen = [p["host_port"] for p in host.call("port.list", guest="web")]
    assert len(set(chosen)) == 20


def test_random_range_is_one_entry_of_consecutive_ports(host, lan):
    with published(host, "7000-7009", serve=[("tcp", 7009)]) as guest:
        entry, = guest.info["ports"]
        assert entry["count"] == 10
        assert greeting(lan, "tcp", topology.HOST, entry["host_port"] + 9)[0] == "guest"


@both_protocols
def test_one_host_address_only(host, lan, protocol, bridge_nf):
    host.ip("address", "add", "192.168.77.98/24", "dev", "eth0")
    try:
        with published(host, f"{topology.HOST}:8080:80/{protocol}") as guest:
            assert greeting(lan, protocol, topology.HOST, 8080) == ("guest", topology.LAN)
            assert greeting(host, protocol, topology.HOST, 8080)[0] == "guest"
            neighbour = host.attach_guest("neighbour")
            assert greeting(neighbour, protocol, topology.HOST, 8080)[0] == "guest"
            assert greeting(guest, protocol, topology.HOST, 8080)[0] == "guest"
            for net, address in ((lan, "192.168.77.98"), (lan, topology.HOST6), (host, "127.0.0.1"), (host, "::1"),
                                 (host, "10.88.0.1"), (neighbour, "10.88.0.1")):
                assert unreachable(net, protocol, address, 8080), f"reached through {address}"
            # The other addresses stay free, for moat and for anybody.
            assert not bind_fails(host, protocol, "192.168.77.98", 8080)
            assert bind_fails(host, protocol, topology.HOST, 8080)
    finally:
        host.ip("address", "del", "192.168.77.98/24", "dev", "eth0")


@both_protocols
def test_one_port_on_two_addresses_for_two_guests(host, lan, protocol):
    host.ip("address", "add", "192.168.77.98/24", "dev", "eth0")
    try:
        one = host.attach_guest("one", "-p", f"{topology.HOST}:8080:80/{protocol}")
        two = host.attach_guest("two", "-p", f"192.168.77.98:8080:80/{protocol}")
        with server(one, protocol, 80, name="one"), server(two, protocol, 80, name="two"):
            assert greeting(lan, protocol, topology.HOST, 8080)[0] == "one"
            assert greeting(lan, protocol, "192.168.77.98", 8080)[0] == "two"
    finally:
        host.ip("address", "del", "192.168.77.98/24", "dev", "eth0")


@both_protocols
def test_one_ipv6_address(host, lan, protocol):
    with published(host, f"[{topology.HOST6}]:8080:80/{protocol}") as guest:
        assert guest.info["ports"][0]["host_ip"] == topology.HOST6
        assert greeting(lan, protocol, topology.HOST6, 8080)[0] == "guest"
        assert unreachable(lan, protocol, topology.HOST, 8080)
        assert unreachable(host, protocol, "::1", 8080)


@both_protocols
def test_published_on_127_0_0_1(host, lan, protocol, bridge_nf):
    with published(host, f"127.0.0.1:8080:80/{protocol}") as guest:
        assert greeting(host, protocol, "127.0.0.1", 8080)[0] == "guest"
        neighbour = host.attach_guest("neighbour")
        for net, address in ((lan, topology.HOST), (lan, topology.HOST6), (host, topology.HOST), (host, "::1"),
                             (neighbour, topology.HOST), (neighbour, "10.88.0.1"), (guest, "10.88.0.1")):
            assert unreachable(net, protocol, address, 8080, 0.3), f"reached through {address}"


@both_protocols
def test_published_on_ipv6_loopback(host, lan, protocol):
    with published(host, f"[::1]:8080:80/{protocol}"):
        assert greeting(host, protocol, "::1", 8080)[0] == "guest"
        assert unreachable(host, protocol, "127.0.0.1", 8080)
        assert unreachable(lan, protocol, topology.HOST6, 8080)


def test_an_address_that_the_host_does_not_have_is_refused(host):
    host.attach_guest("web")
    error = host.error("port.add", guest="web", ports=["192.168.77.55:8080:80"])
    assert error.reason == "address_outside" or error.field, str(error)
    host.refused("port", "add", "web", "192.168.77.55:8080:80", says="192.168.77.55")
    assert host.call("port.list", guest="web") == []


# Who must not get in

@contextlib.contextmanager
def loopback_routed_to(net, via):
    """Turn a machine into one that sends 127.0.0.0/8 to somebody else."""
    net.ip("address", "flush", "dev", "lo", "scope", "host")
    for name in ("all", "eth0"):
        net.sysctl(f"ipv4/conf/{name}/route_localnet", 1)
        net.sysctl(f"ipv4/conf/{name}/rp_filter", 0)
    net.ip("route", "replace", "127.0.0.0/8", "via", via)
    try:
        yield
    finally:
        net.ip("route", "del", "127.0.0.0/8", check=False)
        for name in ("all", "eth0"):
            net.sysctl(f"ipv4/conf/{name}/route_localnet", 0)
        net.ip("address", "replace", "127.0.0.1/8", "dev", "lo")


@both_protocols
def test_loopback_port_is_not_reached_from_the_lan_by_a_crafted_route(host, lan, protocol, bridge_nf):
    with published(host, f"127.0.0.1:8080:80/{protocol}") as guest, server(host, protocol, 9999, "127.0.0.1") as local:
        with loopback_routed_to(lan, topology.HOST):
            assert unreachable(lan, protocol, "127.0.0.1", 8080), "a port published on 127.0.0.1 is open to the lan"
            assert unreachable(lan, protocol, "127.0.0.1", 9999), "the host's loopback services are open to the lan"
        assert [c for s in guest.servers for c in s.clients] == [] and local.clients == []


@both_protocols
def test_loopback_is_not_reached_from_a_guest_by_a_crafted_route(host, protocol, bridge_nf):
    with published(host, f"127.0.0.1:8080:80/{protocol}") as guest, server(host, protocol, 9999, "127.0.0.1") as local:
        for options in ([], ["--mode", "outbound"]):
            evil = host.attach_guest(f"evil{len(options)}", *options)
            with loopback_routed_to(evil, evil.gateway):
                assert unreachable(evil, protocol, "127.0.0.1", 8080), "a guest reaches a port published on 127.0.0.1"
                assert unreachable(evil, protocol, "127.0.0.1", 9999), "a guest reaches the host's loopback services"
        assert [c for s in guest.servers for c in s.clients] == [] and local.clients == []


@both_protocols
def test_traffic_through_the_host_is_not_translated(host, lan, outside, internet, protocol, bridge_nf):
    """The host routes for the lan; what goes to somebody else's port 7 is not for the guest that publishes 7."""
    with published(host, "7:80/tcp", "7:80/udp") as guest:
        lan.ip("route", "add", f"{topology.INTERNET}/32", "via", topology.HOST)
        try:
            lan.sysctl("ipv4/conf/eth0/accept_redirects", 0)
            assert greeting(lan, protocol, topology.INTERNET, 7)[0] == "outside", "transit traffic was stolen"
            assert [c for s in guest.servers for c in s.clients] == []
        finally:
            lan.ip("route", "del", f"{topology.INTERNET}/32")


@both_protocols
def test_a_guests_own_traffic_to_that_port_elsewhere_is_not_translated(host, internet, protocol):
    with published(host, "7:80/tcp", "7:80/udp") as guest:
        assert greeting(guest, protocol, topology.INTERNET, 7)[0] == "outside"
        assert greeting(host, protocol, topology.INTERNET, 7)[0] == "outside"


@both_protocols
def test_unpublished_ports_of_a_guest_are_not_reached_from_the_lan(host, lan, protocol, bridge_nf):
    with published(host) as guest:
        lan.ip("route", "add", "10.88.0.0/16", "via", topology.HOST)
        try:
            assert unreachable(lan, protocol, guest.ip_address, 80), "a guest is reached without a published port"
            assert unreachable(lan, protocol, topology.HOST, 80)
        finally:
            lan.ip("route", "del", "10.88.0.0/16")


def test_publishing_is_refused_in_modes_without_incoming_connections(host):
    for mode in ("outbound", "loopback", "disabled"):
        host.refused("attach", "web", "--network", "default", "--pid", host.guest_space().pid, "--mode", mode, "-p", "8080:80",
                     says=mode)
        host.refused("run", "--mode", mode, "-p", "8080:80", "--", "true", code=125, says=mode)
    guest = host.attach_guest("out", "--mode", "outbound")
    assert host.error("port.add", guest="out", ports=["8080:80"]).reason == "mode_forbids"
    assert guest.ports() == []
    assert not bind_fails(host, "tcp", "0.0.0.0", 8080), "a refused publication holds the port"


# Reservation

@both_protocols
def test_a_published_port_can_not_be_bound_by_a_program(host, protocol):
    with published(host, f"8080:80/{protocol}"):
        for address in ("0.0.0.0", "::", "127.0.0.1", "::1", topology.HOST, topology.HOST6):
            assert bind_fails(host, protocol, address, 8080), f"{address}:8080 could be bound although it is published"
        other = "udp" if protocol == "tcp" else "tcp"
        assert not bind_fails(host, other, "0.0.0.0", 8080), f"{other} is taken as well"
    host.call("port.remove", guest="web", ports=[f"8080:80/{protocol}"])
    assert not bind_fails(host, protocol, "0.0.0.0", 8080), "the port is not free again"
    assert not bind_fails(host, protocol, "::", 8080)


@both_protocols
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", topology.HOST, "::", "::1"])
def test_a_port_that_a_program_holds_is_refused_naming_it(host, protocol, address):
    holder = host.popen("python3", "-c", f"""
import socket, sys
s = socket.socket({'socket.AF_INET6' if ':' in address else 'socket.AF_INET'},
                  {'socket.SOCK_STREAM' if protocol == 'tcp' else 'socket.SOCK_DGRAM'})
s.bind(({address!r}, 8080))
{'s.listen(1)' if protocol == 'tcp' else ''}
print('bound', flush=True)
sys.stdin.read()
""", stdin=-1, stdout=-1)
    try:
        assert holder.stdout.readline() == b"bound\n"
        outcome = host.refused("run", "-n", "web", "-p", f"8080:80/{protocol}", "--", "true", code=125,
                               says=["8080", "python3", holder.pid])
        assert host.guest_names() == [], outcome
        host.attach_guest("web")
        error = host.error("port.add", guest="web", ports=[f"8080:80/{protocol}"])
        assert error.reason == "port_in_use"
    finally:
        holder.communicate()
    host.call("port.add", guest="web", ports=[f"8080:80/{protocol}"])


def test_a_port_of_another_guest_is_refused_naming_it(host):
    host.attach_guest("first", "-p", "8080:80")
    host.attach_guest("second")
    for port in ("8080:80", "8070-8090:70-90", f"{topology.HOST}:8080:80", "127.0.0.1:8080:80"):
        error = host.error("port.add", guest="second", ports=[port])
        assert error.reason == "port_in_use" and "first" in error.message, str(error)
    host.refused("port", "add", "second", "8080:80", says=["8080", "first"])
    # The other protocol is another port.
    host.call("port.add", guest="second", ports=["8080:80/udp"])


def test_the_same_port_twice_in_one_request(host):
    space = host.guest_space()
    for ports in (["8080:80", "8080:81"], ["8080-8085:80-85", "8083:90"], ["8080:80", "127.0.0.1:8080:80"]):
        error = host.error("guest.attach", name="web", kind="netns", pid=space.pid, networks=[{"name": "default"}], ports=ports)
        assert error.reason == "port_in_use" or error.field, str(error)
    assert host.guest_names() == []
    assert not bind_fails(host, "tcp", "0.0.0.0", 8080)


def test_a_refused_request_takes_none_of_its_ports(host):
    host.attach_guest("first", "-p", "8085:80")
    host.attach_guest("second", "-p", "9000:80")
    before = host.kernel()
    error = host.error("port.add", guest="second", ports=["8081:81", "8082:82", "8080-8090:80-90"])
    assert error.reason == "port_in_use"
    assert [p["host_port"] for p in host.call("port.list", guest="second")] == [9000]
    assert not bind_fails(host, "tcp", "0.0.0.0", 8081)
    assert not before.differences(host.kernel())


def test_reservation_outlives_a_restart(host, lan):
    with published(host, "8080:80/tcp", "8080:80/udp"):
        host.stop()
        assert bind_fails(host, "tcp", "0.0.0.0", 8080), "while moatd is away anybody can take the published port"
        host.start()
        for protocol in PROTOCOLS:
            assert bind_fails(host, protocol, "0.0.0.0", 8080)
            assert greeting(lan, protocol, topology.HOST, 8080)[0] == "guest"
            assert greeting(host, protocol, "::1", 8080)[0] == "guest"


# On live guests

def test_add_list_remove(host, lan):
    with published(host) as guest:
        shown = host.moat("port", "add", "web", "8080:80", "8081:80/udp").out
        assert "8080" in shown and "8081" in shown
        assert greeting(lan, "tcp", topology.HOST, 8080)[0] == "guest"
        assert greeting(lan, "udp", topology.HOST, 8081)[0] == "guest"
        listing = host.moat("port", "ls", "web").out
        assert re.search(r"8080.*80.*tcp", listing) and re.search(r"8081.*80.*udp", listing)
        assert host.moat("port", "ls", "--json").json == host.call("port.list")
        host.moat("port", "rm", "web", "8080:80")
        assert unreachable(lan, "tcp", topology.HOST, 8080)
        assert greeting(lan, "udp", topology.HOST, 8081)[0] == "guest"
        assert [p["host_port"] for p in guest.ports()] == [8081]


def test_remove_of_what_is_not_published(host):
    host.attach_guest("web", "-p", "8080:80")
    assert host.error("port.remove", guest="web", ports=["8081:80"]).reason == "not_found"
    assert host.error("port.remove", guest="web", ports=["8080:80/udp"]).reason == "not_found"
    host.refused("port", "rm", "web", "8080:80", "9090:90", says="9090")
    assert [p["host_port"] for p in host.call("port.list", guest="web")] == [8080], "a refused removal took a port"
    assert host.error("port.add", guest="nobody", ports=["8081:80"]).reason == "not_found"


def test_list_of_all_guests_and_of_one(host):
    host.attach_guest("one", "-p", "8080:80")
    host.attach_guest("two", "-p", "8090-8099:90-99/udp")
    assert len(host.call("port.list")) == 2
    assert [p["host_port"] for p in host.call("port.list", guest="two")] == [8090]
    assert host.error("port.list", guest="nobody").reason == "not_found"


def test_tcp_and_udp_of_one_number_come_and_go_apart(host, lan):
    with published(host, "8080:80/tcp", "8080:80/udp"):
        clean = host.kernel()
        for first, second in (("tcp", "udp"), ("udp", "tcp")):
            host.call("port.remove", guest="web", ports=[f"8080:80/{first}"])
            assert unreachable(lan, first, topology.HOST, 8080)
            assert greeting(lan, second, topology.HOST, 8080)[0] == "guest"
            host.call("port.remove", guest="web", ports=[f"8080:80/{second}"])
            host.call("port.add", guest="web", ports=[f"8080:80/{second}", f"8080:80/{first}"])
        assert not clean.differences(host.kernel())
        host.call("port.remove", guest="web", ports=["8080:80/udp", "8080:80/tcp"])
        assert host.call("port.list") == []


def test_too_many_entries_are_refused(host):
    host.attach_guest("web", *[x for i in range(256) for x in ("-p", f"{10000 + i}:80")])
    error = host.error("port.add", guest="web", ports=["9000:80"])
    assert error.reason == "quota"
    assert len(host.call("port.list", guest="web")) == 256


# What goes, goes at once

@both_protocols
def test_ports_are_free_when_the_guest_is_gone(host, protocol):
    for _ in range(3):
        guest = host.attach_guest("web", "-p", f"8080:80/{protocol}")
        host.moat("detach", "web")
        assert not bind_fails(host, protocol, "0.0.0.0", 8080)
        guest.space.close()


def test_established_connections_end_with_their_port(host, lan):
    """The translation of what goes is flushed: packets of the old connection lead nowhere."""
    with published(host, "8080:80", "8081:80"), servers.connect(lan, topology.HOST, 8080) as going, \
            servers.connect(lan, topology.HOST, 8081) as staying:
        for sock in (going, staying):
            servers.read_line(sock)
        host.call("port.remove", guest="web", ports=["8080:80"])

        def cut():
            try:
                going.settimeout(0.2)
                going.sendall(b"x")
                return going.recv(1) == b""
            except TimeoutError:
                return True
            except OSError:
                return True

        wait_for(cut, 2, "the connection through the removed port to end")
        staying.sendall(b"still here")
        assert staying.recv(100) == b"still here", "another port's connection was cut too"


def test_a_udp_client_that_never_stops_reaches_the_successor(host, lan, bridge_nf):
    """Conntrack keeps a UDP translation alive as long as the client sends."""
    space = host.guest_space("old")
    host.moat("attach", "old", "--network", "default", "--pid", space.pid, "-p", "5000:5000/udp")
    stop = threading.Event()
    answers = []
    with servers.UdpServer(space, 5000, name="old"), lan.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", 40000))
        client.settimeout(0.02)

        def keep_sending():
            while not stop.is_set():
                try:
                    client.sendto(b"tick", (topology.HOST, 5000))
                    answers.append(client.recv(1000).split()[0].decode())
                except OSError:
                    pass

        sender = threading.Thread(target=keep_sending)
        sender.start()
        try:
            wait_for(lambda: "old" in answers, 3, "an answer of the first guest")
            host.moat("detach", "old")
            new = host.attach_guest("new", "-p", "5000:5000/udp")
            with servers.UdpServer(new, 5000, name="new"):
                wait_for(lambda: "new" in answers, 1, lambda: f"an answer of the successor; last: {answers[-3:]}")
                seen = len(answers)
                wait_for(lambda: len(answers) > seen + 20, 3, "further answers")
                assert set(answers[seen:]) == {"new"}, "the dead guest's translation is still used"
        finally:
            stop.set()
            sender.join()


def test_a_udp_client_that_was_there_before_the_port_reaches_it(host, lan):
    """What arrived before anybody published has an entry without translation: it must not stay that way."""
    guest = host.attach_guest("web")
    with servers.UdpServer(guest, 5000, name="guest"), lan.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", 40001))
        client.settimeout(0.05)
        client.sendto(b"too early", (topology.HOST, 5000))
        host.call("port.add", guest="web", ports=["5000:5000/udp"])

        def answered():
            try:
                client.sendto(b"tick", (topology.HOST, 5000))
                return client.recv(1000).startswith(b"guest")
            except OSError:
                return False

        wait_for(answered, 1, "the published port to answer a client that sends from one port")


def test_only_what_goes_is_flushed(host, lan, internet):
    """Detaching one guest touches no flow of another."""
    with published(host, "8080:80") as guest, servers.connect(lan, topology.HOST, 8080) as inward, \
            servers.connect(guest, topology.INTERNET, 7) as outward:
        for sock in (inward, outward):
            servers.read_line(sock)
        for i in range(3):
            host.attach_guest(f"other{i}", "-p", f"{9000 + i}:80", "-p", f"{9000 + i}:80/udp")
            host.moat("detach", f"other{i}")
        for sock in (inward, outward):
            sock.sendall(b"alive")
            assert sock.recv(100) == b"alive"


# Beside other firewalls and settings

def test_published_port_with_a_policy_drop_of_somebody_else_is_found_by_doctor(host, lan):
    """An accept of ours can't undo another table's drop; but it must be said."""
    host.nft("table ip foreign { chain f { type filter hook forward priority 0; policy drop; } }")
    try:
        with published(host, "8080:80"):
            assert unreachable(lan, "tcp", topology.HOST, 8080)
            outcome = host.moat("doctor", check=False)
            assert outcome.code == 1 and "foreign" in outcome.out + outcome.err, str(outcome)
    finally:
        host.nft("delete table ip foreign")


def test_source_address_is_kept_with_a_foreign_masquerade_elsewhere(host, lan):
    host.nft('table ip foreign { chain p { type nat hook postrouting priority 100; oifname "tun9" masquerade; } }')
    try:
        with published(host, "8080:80"):
            assert greeting(lan, "tcp", topology.HOST, 8080) == ("guest", topology.LAN)
    finally:
        host.nft("delete table ip foreign")


def test_publishing_holds_no_port_of_the_guest(host):
    """The reservation lies on the host: the guest can bind its own port."""
    guest = host.attach_guest("web", "-p", "8080:80")
    for protocol in PROTOCOLS:
        assert not bind_fails(guest, protocol, "0.0.0.0", 8080)
        assert not bind_fails(guest, protocol, "0.0.0.0", 80)


def test_relay_worker_runs_without_privilege(host):
    with published(host, "8080:80"):
        assert greeting(host, "tcp", "::1", 8080)[0] == "guest"
        pid = host.call("system.status")["relay_pid"]
        assert process_name(pid), "no relay worker"
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status", encoding="ascii") if ":\t" in line)
        assert set(status["Uid"].split()) != {"0"} and "0" not in status["Uid"].split()
        for caps in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
            assert int(status[caps], 16) == 0, f"{caps} of the relay worker: {status[caps].strip()}"
        assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"


def test_relay_worker_is_started_again(host):
    with published(host, "8080:80"):
        first = host.call("system.status")["relay_pid"]
        kill(first, 9)
        wait_for(lambda: host.call("system.status")["relay_pid"] not in (None, first), 3, "a new relay worker")
        wait_for(lambda: not unreachable(host, "tcp", "::1", 8080), 3, "the port on [::1] to answer again")


def test_a_slow_client_of_the_relay_hinders_nobody(host):
    with published(host, "8080:80"):
        idle = [servers.connect(host, "::1", 8080) for _ in range(50)]
        try:
            with Stopwatch() as watch:
                assert greeting(host, "tcp", "::1", 8080)[0] == "guest"
            assert watch.ms < 1000 * PATIENCE
        finally:
            for sock in idle:
                sock.close()


def test_detached_guests_relay_connections_end(host):
    with published(host, "8080:80"), servers.connect(host, "::1", 8080) as sock:
        servers.read_line(sock)
        host.moat("detach", "web")
        sock.settimeout(3 * PATIENCE)
        try:
            assert sock.recv(1) == b""
        except ConnectionError:
            pass


def test_nothing_of_a_failed_publication_lasts(host):
    guest = host.attach_guest("web")
    blocker = servers.bound(host, socket.SOCK_STREAM, "0.0.0.0", 8085)
    with blocker:
        assert host.error("port.add", guest="web", ports=["8080-8090:80-90"]).reason == "port_in_use"
    assert guest.ports() == []
    for port in (8080, 8084, 8085, 8086, 8090):
        assert not bind_fails(host, "tcp", "0.0.0.0", port), f"{port} stays taken"
