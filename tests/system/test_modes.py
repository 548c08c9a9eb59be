# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's mode while it runs: moat policy show and set --mode."""

import pytest

import dns
import servers
import topology
from flows import Flows, TcpFlow, UdpFlow
from wait import wait_for


def test_show(host):
    host.attach_guest("box", "--mode", "outbound")
    assert host.call("policy.get", guest="box")["mode"] == "outbound"
    assert "outbound" in host.moat("policy", "show", "box").out


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_outbound_and_back(host, internet, protocol, bridge_nf):
    guest, peer = host.attach_guest("box"), host.attach_guest("peer")
    server = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    with server(guest, 80, name="box"), server(peer, 80, name="peer"):
        assert servers.greeting(peer, protocol, guest.ip_address, 80)[0] == "box"
        host.moat("policy", "set", "box", "--mode", "outbound")
        assert guest.refresh().info["mode"] == "outbound"
        assert servers.unreachable(peer, protocol, guest.ip_address, 80), "a peer reaches an outbound guest"
        assert servers.unreachable(host, protocol, guest.ip_address, 80), "the host reaches an outbound guest"
        assert servers.greeting(guest, protocol, topology.INTERNET, 7)[0] == "outside"
        assert servers.greeting(guest, protocol, peer.ip_address, 80) == ("peer", guest.ip_address)
        assert dns.ask(guest, guest.gateway, "peer").data == [peer.ip_address]
        host.moat("policy", "set", "box", "--mode", "full")
        assert servers.greeting(peer, protocol, guest.ip_address, 80)[0] == "box"
        assert servers.greeting(guest, protocol, peer.ip_address, 80)[0] == "peer"


def test_own_connections_outlive_the_change(host, internet):
    guest, peer = host.attach_guest("box"), host.attach_guest("peer")
    with servers.TcpServer(peer, 80):
        flows = {"tcp to the outside": TcpFlow(guest, topology.INTERNET, 7), "tcp to a peer": TcpFlow(guest, peer.ip_address, 80)}
        try:
            for mode in ("outbound", "full", "outbound"):
                host.moat("policy", "set", "box", "--mode", mode)
                rounds = {name: flow.rounds for name, flow in flows.items()}
                wait_for(lambda: all(flow.rounds > rounds[name] + 5 or flow.error for name, flow in flows.items()), 5,
                         lambda: f"traffic to go on in mode {mode}: {rounds} → { {n: f.rounds for n, f in flows.items()} }")
                assert not [flow.error for flow in flows.values() if flow.error]
        finally:
            for flow in flows.values():
                flow.finish()


def test_others_lose_nothing_by_the_change(host, internet):
    one, two = host.attach_guest("one"), host.attach_guest("two")
    box = host.attach_guest("box")
    with servers.UdpServer(two, 80), Flows({"udp between others": UdpFlow(one, two.ip_address, 80),
                                            "udp to the outside": UdpFlow(one, topology.INTERNET, 7)}):
        for mode in ("outbound", "full"):
            host.moat("policy", "set", "box", "--mode", mode)
    assert box.ping(topology.INTERNET)


def test_a_mode_outlives_a_restart(host):
    guest, peer = host.attach_guest("box"), host.attach_guest("peer")
    host.moat("policy", "set", "box", "--mode", "outbound")
    host.restart(crash=True)
    assert guest.refresh().info["mode"] == "outbound"
    with servers.TcpServer(guest, 80):
        assert servers.unreachable(peer, "tcp", guest.ip_address, 80)
    assert guest.ping(topology.INTERNET)


def test_not_with_published_ports(host):
    guest = host.attach_guest("box", "-p", "8080:80")
    error = host.error("policy.set", guest="box", mode="outbound")
    assert error.reason == "mode_forbids"
    assert guest.refresh().info["mode"] == "full"


@pytest.mark.parametrize("before", ["up", "down"])
@pytest.mark.parametrize("mode, flags", [("disabled", False), ("loopback", True)])
def test_attached_without_interfaces(host, mode, flags, before):
    """No network is named; lo is as the mode says, whatever it was."""
    space = host.guest_space()
    space.ip("link", "set", "lo", before)
    host.moat("attach", "box", "--pid", space.pid, "--mode", mode)
    assert host.call("guest.get", name="box")["mode"] == mode and set(space.links()) == {"lo"}
    assert ("UP" in space.links()["lo"]["flags"]) == flags
    host.moat("detach", "box")
    host.moat("attach", "box", "--netns", space.net_path, "--mode", mode)


@pytest.mark.parametrize("mode", ["disabled", "loopback"])
def test_not_to_a_mode_without_interfaces(host, mode):
    guest = host.attach_guest("box")
    assert host.error("policy.set", guest="box", mode=mode).reason == "mode_forbids"
    assert guest.ping(topology.INTERNET)


def test_networks_are_refused_in_modes_without_interfaces(host):
    for mode in ("disabled", "loopback"):
        error = host.error("guest.attach", name="box", kind="netns", pid=host.guest_space().pid, mode=mode,
                           networks=[{"name": "default"}])
        assert error.reason == "mode_forbids"


def test_an_internal_network_first(host):
    """An internal network has no way out: the default route is that of the next network."""
    host.call("network.create", name="inner", internal=True)
    guest = host.run_guest("box", "--network", "inner", "--network", "default")
    assert guest.ping(topology.INTERNET)
    default, = [r for r in guest.ip_json("route", "show") if r["dst"] == "default"]
    assert default["dev"] == "eth1"


def test_publishing_from_an_internal_network_only(host, lan):
    """Nothing goes into an internal network: the port is refused, and the reason said."""
    host.call("network.create", name="inner", internal=True)
    outcome = host.moat("run", "--network", "inner", "-p", "8080:80", "--", "true", check=False)
    assert outcome.code == 125 and "internal" in outcome.err, str(outcome)
