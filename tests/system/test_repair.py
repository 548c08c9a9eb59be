# SPDX-License-Identifier: GPL-2.0-or-later
"""What others change of what is ours is put right without anybody asking."""

import os
import signal
import socket
import threading

import pytest

import dns
import rpc
import servers
import topology
from netns import kill_quietly
from wait import PATIENCE, Stopwatch, wait_for


@pytest.fixture
def six(host):
    host.moat("net", "create", "six", "--ipv6")
    return host.call("network.get", name="six")


@pytest.fixture
def far(outside):
    """By family, a server outside."""
    addresses = {4: topology.INTERNET, 6: topology.INTERNET6}
    with servers.TcpServer(outside, 77, topology.INTERNET), servers.TcpServer(outside, 77, topology.INTERNET6):
        yield addresses


def reaches(net, address, port=77, timeout=0.2):
    return not servers.unreachable(net, "tcp", address, port, timeout)


# Routes

@pytest.mark.parametrize("family", [4, 6])
def test_host_routes(host, six, far, family):
    guest = host.attach_guest("g", "--mode", "outbound", network="six")
    assert reaches(guest, far[family])
    host.ip(f"-{family}", "route", "flush", "proto", "109")
    wait_for(lambda: host.ip(f"-{family}", "route", "show", "proto", "109"), 1, "the host route")
    wait_for(lambda: reaches(guest, far[family]), 1, "the way out and back")


def test_changes_while_a_repair_goes_on(host):
    """Guests are repaired one by one: others come and go in between."""
    before = host.kernel()
    stay = [host.attach_guest(f"s{n}", "--mode", "outbound") for n in range(12)]
    spaces = [host.guest_space() for _ in range(2)]
    wrong = []

    def churn(space, name):
        try:
            with rpc.Rpc(host.socket_path) as connection:
                for _ in range(15):
                    connection.call("guest.attach", name=name, kind="netns", pid=space.pid, mode="outbound",
                                    networks=[{"name": "default"}])
                    connection.call("guest.detach", name=name)
        except BaseException as error:
            wrong.append(f"{name}: {error}")

    threads = [threading.Thread(target=churn, args=(space, f"c{n}")) for n, space in enumerate(spaces)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        host.ip("route", "flush", "proto", "109", check=False)  # one of them may just be going
        host.call("guest.list")
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    routes = lambda: {route["dst"] for route in host.ip_json("route", "show", "proto", "109")}
    wait_for(lambda: routes() == {guest.ip_address for guest in stay}, 3, lambda: f"the routes, not {routes()}")
    for guest in stay:
        host.call("guest.detach", name=guest.name)
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))


# Bridges

def test_a_bridge_with_stp_switched_on(host, six, far):
    """STP itself is undone, and does not keep anything else from being put right."""
    guest = host.attach_guest("g", network="six")
    host.ip("link", "set", six["bridge"], "type", "bridge", "stp_state", "1")
    host.ip("address", "flush", "dev", six["bridge"])
    wait_for(lambda: reaches(guest, far[4]) and reaches(guest, far[6]), 2, "the ways out")
    assert host.ip_json("-d", "link", "show", six["bridge"])[0]["linkinfo"]["info_data"]["stp_state"] == 0
    assert host.moat("doctor").code == 0


def test_stp_alone_is_noticed(host, six):
    def stp():
        return host.ip_json("-d", "link", "show", six["bridge"])[0]["linkinfo"]["info_data"]["stp_state"]

    host.ip("link", "set", six["bridge"], "type", "bridge", "stp_state", "1")
    wait_for(lambda: stp() == 0, 1, "STP to be off")


def test_a_repair_that_fails_is_a_finding_until_one_succeeds(host, six, far):
    guest = host.attach_guest("g", network="six")
    os.kill(host.daemon.pid, signal.SIGSTOP)  # it would be faster
    host.ip_batch([f"link del {six['bridge']}", f"link add {six['bridge']} type bridge"])
    os.kill(host.daemon.pid, signal.SIGCONT)
    said = wait_for(lambda: (outcome := host.moat("doctor", check=False)).code == 1 and outcome.out, 2)
    assert "network six:" in said and six["bridge"] in said
    host.ip("link", "del", six["bridge"])
    wait_for(lambda: host.moat("doctor", check=False).code == 0, 12, "the next attempt")
    wait_for(lambda: reaches(guest, far[4]), 2, "the way out")


# The name service's port

@pytest.fixture
def greedy(machine):
    """A name server of the host's that listens on every address."""
    with servers.UdpServer(machine, 53, "0.0.0.0", name="greedy") as server:
        yield server


def resolves(guest):
    return dns.ask(guest, guest.gateway, "g").data == [guest.ip_address]


def test_the_default_network_is_there_without_its_name_service(machine, far, greedy):
    machine.start()
    guest = machine.attach_guest("g")
    assert reaches(guest, far[4], timeout=0.9)  # with its first packet, also where all is slow
    outcome = machine.moat("doctor", check=False)
    assert outcome.code == 1 and "network default has none" in outcome.out and "53" in outcome.out
    assert f"pid {os.getpid()}" in outcome.out
    machine.refused("net", "create", "other", says=["53", "--no-dns"])
    greedy.close()
    wait_for(lambda: machine.moat("doctor", check=False).code == 0, 4, "the name service")
    assert resolves(guest)


def test_a_restart_without_the_port(host):
    host.reboot(start=False)
    with servers.UdpServer(host, 53, "0.0.0.0", name="greedy"):
        host.start()
        assert "network default has none" in host.moat("doctor", check=False).out
    guest = host.attach_guest("g")
    wait_for(lambda: host.moat("doctor", check=False).code == 0, 4, "the name service")
    assert resolves(guest)


# What the kernel tells nobody of

SETTINGS = [
    ("bridge", "ipv4", "route_localnet", "0"), ("port", "ipv4", "route_localnet", "0"), ("port", "ipv4", "proxy_arp", "0"),
    ("bridge", "ipv6", "proxy_ndp", "0"), ("bridge", "ipv6", "accept_ra", "1"), ("port", "ipv6", "accept_ra", "1"),
    ("bridge", "ipv6", "forwarding", "0"), ("port", "ipv6", "forwarding", "0"), ("bridge", "ipv6", "disable_ipv6", "1"),
]


@pytest.mark.parametrize("where, family, key, value", SETTINGS, ids=lambda value: value)
def test_settings_of_links(host, six, where, family, key, value):
    guest = host.attach_guest("g", "--mode", "outbound", network="six")
    name = f"{family}/conf/{six['bridge'] if where == 'bridge' else guest.endpoint()['host_interface']}/{key}"
    before = host.sysctl(name)
    host.sysctl(name, value)
    wait_for(lambda: host.sysctl(name) == before, 3, f"{name} to be {before} again")
    assert host.moat("doctor").code == 0


@pytest.mark.parametrize("family", [4, 6])
def test_proxy_entries_of_routed_guests(host, six, family):
    routed, bridged = host.attach_guest("r", "--deny", "192.0.2.1", network="six"), host.attach_guest("b", network="six")
    address = routed.endpoint()["ip" if family == 4 else "ip6"]
    assert bridged.ping(address)
    host.ip("neigh", "del", "proxy", address, "dev", six["bridge"])
    wait_for(lambda: address in host.ip(f"-{family}", "neigh", "show", "proxy"), 3, "the proxy entry")
    bridged.ip("neigh", "flush", "all")
    assert bridged.ping(address)


@pytest.mark.parametrize("where", ["bridge", "port"])
def test_the_routers_address(host, six, far, where):
    guest = host.attach_guest("g", "--mode", "outbound" if where == "port" else "full", network="six")
    link = six["bridge"] if where == "bridge" else guest.endpoint()["host_interface"]
    host.ip("address", "del", "fe80::1/64", "dev", link)
    wait_for(lambda: "fe80::1/64" in host.ip("address", "show", "dev", link), 1, "the router's address")
    assert reaches(guest, far[6])


# Workers

@pytest.fixture
def stop_relay(host):
    """Stops it, so that it answers nothing and holds all published ports; its pid."""
    stopped = []

    def stop():
        stopped.append(host.call("system.status")["relay_pid"])
        os.kill(stopped[0], signal.SIGSTOP)
        return stopped[0]

    yield stop
    for pid in stopped:
        kill_quietly(pid, signal.SIGCONT)


def can_bind(host, port):
    with host.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.bind(("::", port))
    return True


def test_a_relay_that_hangs_holds_nobody_up(host, stop_relay):
    """But who gives ports back, or wants some meanwhile: their answers come when it is ended."""
    host.attach_guest("g", *(option for port in range(8000, 8032) for option in ("-p", f"{port}:80")))
    other, space = host.attach_guest("h"), host.guest_space()
    with rpc.Rpc(host.socket_path) as leaving, rpc.Rpc(host.socket_path) as coming:
        relay = stop_relay()
        leaving.send(leaving.request("guest.detach", name="g"))
        coming.send(coming.request("port.add", guest="h", ports=["8000:80"]))
        for _ in range(3):
            host.call("guest.attach", name="k", kind="netns", pid=space.pid, networks=[{"name": "default"}])
            host.call("guest.list")
            host.call("guest.detach", name="k")
        doctor = host.call("system.doctor")
        assert leaving.silent(0) and coming.silent(0), "others waited for the relay too"
        assert "does not answer" in str(doctor), doctor
        assert leaving.receive(5 * PATIENCE)["result"] == {}
        assert can_bind(host, 8001)
        assert host.call("system.status")["relay_pid"] != relay
        added = coming.receive(5 * PATIENCE)
        assert added.get("result", [{}])[0].get("host_port") == 8000, added
    with servers.TcpServer(other, 80):
        assert servers.greeting(host, "tcp", "::1", 8000)
    wait_for(lambda: host.moat("doctor", check=False).code == 0, 1)


def test_a_relay_that_is_slow_stays(host, stop_relay):
    host.attach_guest("g", "-p", "8000:80")
    with rpc.Rpc(host.socket_path) as leaving:
        relay = stop_relay()
        leaving.send(leaving.request("guest.detach", name="g"))
        assert leaving.silent(0.3)  # an answer would not be true
        os.kill(relay, signal.SIGCONT)
        assert leaving.receive(5 * PATIENCE)["result"] == {}
        assert can_bind(host, 8000)
    assert host.call("system.status")["relay_pid"] == relay


@pytest.mark.parametrize("worker", ["relay_pid", "dns_pid"])
def test_a_worker_that_hangs_is_replaced(host, worker):
    former = host.call("system.status")[worker]
    os.kill(former, signal.SIGSTOP)
    wait_for(lambda: host.call("system.status")[worker] not in (0, None, former), 10, "another one")
    assert host.moat("doctor").code == 0
