# SPDX-License-Identifier: GPL-2.0-or-later
"""What is dropped of a guest is counted for it alone, and told of: by moat inspect and moat events."""

import pytest

import frames
import servers
import topology
from frames import BROADCAST, ETH_ARP, ETH_IP, ETH_IP6, frame, send
from test_hostile import MARK, Party, udp_frame
from test_policy import attempt
from wait import wait_for


def drops(host, name):
    """Left out where nothing was dropped."""
    return host.moat("inspect", name).json[0].get("drops", {"frames": 0, "connections": 0})


def wait_drops(host, name, **wanted):
    wait_for(lambda: {key: drops(host, name)[key] for key in wanted} == wanted, 3, f"the counts of {name} to be {wanted}")


@pytest.fixture
def pair(host):
    return [Party(host.attach_guest(name)) for name in ("evil", "victim")]


def test_nothing_is_dropped_of_an_honest_guest(host, pair, internet):
    evil, victim = pair
    with servers.TcpServer(victim.net, 80, name="victim"):
        assert servers.tcp_greeting(evil.net, victim.ip, 80)[0] == "victim"
        assert servers.tcp_greeting(evil.net, topology.INTERNET, 7)[0] == "outside"
        assert evil.net.ping(evil.guest.gateway)
    assert drops(host, "evil") == drops(host, "victim") == {"frames": 0, "connections": 0}


def test_each_false_frame_of_a_bridged_port_counts(host, pair, bridge_nf):
    evil, victim = pair
    before = drops(host, "evil")["frames"]
    false = [
        udp_frame(evil, victim, ip="10.88.99.99"), udp_frame(evil, victim, mac="02:12:34:56:78:9a"),
        frame(evil.mac, BROADCAST, ETH_ARP, frames.arp(2, evil.mac, evil.guest.gateway, victim.mac, victim.ip)),
        frame(evil.mac, BROADCAST, ETH_IP, frames.udp4(evil.ip, "255.255.255.255", 67, 68, MARK)),
        frame(evil.mac, BROADCAST, ETH_IP6, frames.udp6("fe80::5", "ff02::1", 5000, 5001, MARK)),
        frames.vlan(udp_frame(evil, victim)), frame(evil.mac, BROADCAST, 0x88CC, MARK)]
    for i, data in enumerate(false):
        send(evil.net, "eth0", data, 3)
        wait_drops(host, "evil", frames=before + 3 * (i + 1))
    assert drops(host, "victim")["frames"] == 0


def test_those_of_a_routed_port_count_too(host, internet):
    host.moat("net", "create", "six", "--ipv6")
    evil = Party(host.attach_guest("evil", "--deny", "192.0.2.1", network="six"))
    other = Party(host.attach_guest("other", "--deny", "192.0.2.1", network="six"))
    gateway = host.links()[evil.port]["address"]
    before = drops(host, "evil")["frames"]
    send(evil.net, "eth0", frame(evil.mac, gateway, ETH_IP, frames.udp4("8.8.8.8", other.ip, 1, 2, MARK)), 5)
    wait_drops(host, "evil", frames=before + 5)
    send(evil.net, "eth0", frame(evil.mac, gateway, ETH_IP6, frames.udp6("2001:db8::66", other.ip6, 1, 2, MARK)), 5)
    wait_drops(host, "evil", frames=before + 10)
    assert drops(host, "other")["frames"] == 0


@pytest.mark.parametrize("family", [4, 6])
def test_refused_connections_count(host, internet, family):
    """By the policy, and by the bounds of the network; a bridged guest's as well."""
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", network="six")
    other = host.attach_guest("other", network="six")
    address = topology.INTERNET if family == 4 else topology.INTERNET6
    mine = guest.endpoint()["ip" if family == 4 else "ip6"]
    gateway = host.call("network.get", name="six")["gateway" if family == 4 else "gateway6"]
    assert attempt(guest, "tcp", gateway, 22) == "ECONNREFUSED"
    assert drops(host, "guest") == {"frames": 0, "connections": 1}
    host.moat("policy", "set", "guest", "--deny", f"{address}" if family == 4 else f"[{address}]:7")
    assert attempt(guest, "tcp", address, 7) == "ECONNREFUSED"
    assert drops(host, "guest")["connections"] == 2
    host.moat("policy", "set", "guest", "--mode", "outbound")
    assert servers.unreachable(other, "tcp", mine, 80)
    assert drops(host, "other")["connections"] == 1 and drops(host, "guest")["connections"] == 2
    host.moat("policy", "set", "guest", "--mode", "full")


def test_counts_outlive_changes_restarts_and_repairs(host, pair, internet):
    evil, victim = pair
    before = drops(host, "evil")["frames"]
    send(evil.net, "eth0", udp_frame(evil, victim, ip="10.88.99.99"), 4)
    wait_drops(host, "evil", frames=before + 4)
    assert attempt(evil.net, "tcp", evil.guest.gateway, 22) == "ECONNREFUSED"
    counted = {"frames": before + 4, "connections": 1}
    for change in (["--deny", "192.0.2.1"], ["--allow", "any", "--mode", "outbound"], ["--mode", "full"]):
        host.moat("policy", "set", "evil", *change)
        assert drops(host, "evil") == counted, change
    host.moat("port", "add", "evil", "8080:80")
    host.moat("port", "rm", "evil", "8080:80")
    host.moat("net", "create", "blue")
    attached = host.moat("attach", "evil", "--network", "blue", "--json").json
    assert attached["drops"] == drops(host, "evil") == counted
    assert [g for g in host.call("guest.list") if g["name"] == "evil"] == [host.call("guest.get", name="evil")]
    for crash in (False, True):
        host.restart(crash=crash)
        assert drops(host, "evil") == counted
    host.moat("detach", "evil", "--network", "blue")
    assert drops(host, "evil") == counted


def test_counts_outlive_a_repair(machine, internet):
    """On a kernel without owned tables: an element is taken out by somebody, and the table made anew."""
    machine.start(env={"MOAT_FAULT": "nat.owner"})
    evil, victim = [Party(machine.attach_guest(name)) for name in ("evil", "victim")]
    send(evil.net, "eth0", udp_frame(evil, victim, ip="10.88.99.99"), 4)
    assert attempt(evil.net, "tcp", evil.guest.gateway, 22) == "ECONNREFUSED"
    wait_drops(machine, "evil", frames=4, connections=1)
    watcher = machine.rpc().subscribe()
    machine.run("nft", "flush", "set", "inet", "moat", "gateway4")
    watcher.event_where(lambda event: event["type"] == "repaired")
    assert drops(machine, "evil") == {"frames": 4, "connections": 1}
    send(evil.net, "eth0", udp_frame(evil, victim, ip="10.88.99.99"), 2)
    wait_drops(machine, "evil", frames=6, connections=1)


def test_they_go_with_the_guest(host, pair):
    evil, victim = pair
    send(evil.net, "eth0", udp_frame(evil, victim, ip="10.88.99.99"), 4)
    wait_drops(host, "evil", frames=4)
    address = evil.ip
    evil.guest.end()
    again = Party(host.attach_guest("evil", network=f"default,ip={address}"))
    assert drops(host, "evil")["frames"] == 0
    send(again.net, "eth0", udp_frame(again, victim, ip="10.88.99.99"), 1)
    wait_drops(host, "evil", frames=1)


def test_an_event_tells_of_it_but_not_of_each(host, pair):
    evil, victim = pair
    watcher = host.rpc().subscribe()
    send(evil.net, "eth0", udp_frame(evil, victim, ip="10.88.99.99"), 200)
    event = watcher.event_where(lambda event: event["type"] == "guest.dropped")
    assert event["guest"] == "evil" and "200 so far" in event["detail"], event
    assert watcher.silent(0.3)
    send(evil.net, "eth0", udp_frame(evil, victim, ip="10.88.99.99"), 3)
    event = watcher.event_where(lambda event: event["type"] == "guest.dropped")
    assert "203 so far" in event["detail"]


def test_another_listener_in_our_place_is_found_by_doctor(machine, internet):
    """The group can be had by one only; moatd goes on without its events."""
    taker = machine.popen("python3", "-c", TAKE_GROUP, stdout=-1, text=True)
    try:
        assert taker.stdout.readline() == "bound\n"
        machine.start()
        check = [c for c in machine.call("system.doctor") if c["name"] == "log"][0]
        assert not check["ok"] and "28013" in check["remedy"]
        guest = Party(machine.attach_guest("evil"))
        send(guest.net, "eth0", udp_frame(guest, guest, ip="10.88.99.99"), 4)
        wait_drops(machine, "evil", frames=4)
    finally:
        taker.kill()
        taker.wait()
        taker.stdout.close()
    machine.restart()
    assert [c["ok"] for c in machine.call("system.doctor") if c["name"] == "log"] == [True]


# struct nlmsghdr, struct nfgenmsg with the group, NFULA_CFG_CMD = bind
TAKE_GROUP = """
import socket, struct, time
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.bind((0, 0))
attribute = struct.pack("HHB3x", 5, 1, 1)
body = struct.pack("BB", 0, 0) + struct.pack(">H", 28013) + attribute
s.send(struct.pack("IHHII", 16 + len(body), 4 << 8 | 1, 5, 1, 0) + body)
assert struct.unpack_from("i", s.recv(1000), 16)[0] == 0
print("bound", flush=True)
time.sleep(1000)
"""
