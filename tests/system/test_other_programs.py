# SPDX-License-Identifier: GPL-2.0-or-later
"""What other programs do to nftables: it never opens anything, and what it breaks is whole again within a second."""

import contextlib
import subprocess
import threading

import pytest

import servers
import topology
from test_policy import attempt
from wait import PATIENCE, Stopwatch, wait_for

FIREWALLD_RELOAD = """
flush ruleset
table inet firewalld {
  chain filter_INPUT { type filter hook input priority 10; policy accept; ct state invalid drop; }
  chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state { established, related } accept; }
  chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; }
}
"""

ATTACKS = {
    "flush ruleset": "flush ruleset",
    "delete table": "delete table inet moat",
    "delete the other table": "delete table bridge moat",
    "firewalld reload": FIREWALLD_RELOAD,
    "element of the policy": 'delete element inet moat policy_private { "PORT" }',
    "all policies": "flush map inet moat policy_public\nflush map inet moat policy_private",
    "all modes": "flush set inet moat closed4",
    "all networks": "flush set inet moat same",
    "rules of the forward chain": "flush chain inet moat forward",
    "rules of the policy": "flush chain inet moat guest_policy",
    "rules of the bridge": "flush chain bridge moat ports",
}


class Scene:
    """A guest with a rule, one in mode outbound, their peer, and the LAN with a route to all of them."""

    def __init__(self, host, lan, stack):
        self.host, self.lan = host, lan
        self.peer = host.attach_guest("peer")
        self.closed = host.attach_guest("closed", "--mode", "outbound")
        self.guest = host.attach_guest("guest", "--deny", f"{self.peer.ip_address}:81", "--deny", f"{topology.LAN}")
        for net, ports in ((self.peer, (80, 81)), (self.closed, (80,)), (lan, (80,))):
            for port in ports:
                stack.enter_context(servers.TcpServer(net, port, name="there"))
        lan.ip("route", "add", "10.88.0.0/16", "via", topology.HOST)
        stack.callback(lan.ip, "route", "del", "10.88.0.0/16")

    def forbidden(self):
        """(what, from whom, to which address, port)"""
        return (("a denied peer", self.guest, self.peer.ip_address, 81), ("a denied address", self.guest, topology.LAN, 80),
                ("mode outbound", self.peer, self.closed.ip_address, 80), ("the host to mode outbound", self.host, self.closed.ip_address, 80),
                ("unpublished", self.lan, self.peer.ip_address, 80))

    def permitted(self):
        return ((self.guest, self.peer.ip_address, 80), (self.guest, topology.INTERNET, 7), (self.closed, topology.INTERNET, 7),
                (self.peer, topology.INTERNET, 7))

    def wrong(self):
        """What is not as it has to be."""
        closed = [(net.name, address, port) for net, address, port in self.permitted()
                  if attempt(net, "tcp", address, port) != "open"]
        opened = [what for what, net, address, port in self.forbidden() if attempt(net, "tcp", address, port, 0.3) == "open"]
        return closed + opened

    def attack(self, name):
        """What nft says to it; "" when it was done."""
        text = ATTACKS[name].replace("PORT", self.guest.endpoint()["host_interface"])
        with self.host.popen("nft", "-f", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as nft:
            return nft.communicate(text + "\n")[1]


@pytest.fixture
def scene(machine, lan, internet):
    with contextlib.ExitStack() as stack:
        yield lambda: Scene(machine, lan, stack)
        machine.run("nft", "delete", "table", "inet", "firewalld", check=False)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_open_for_an_instant(machine, scene, name):
    """The table is owned: nobody else can change it, and a flush of everything passes it by."""
    machine.start()
    scene = scene()
    assert scene.wrong() == []
    rules = machine.run("nft", "list", "table", "inet", "moat")
    stop, opened, tries = threading.Event(), [], []

    def read(what, net, address, port):
        while not stop.is_set():
            tries.append(what)
            if attempt(net, "tcp", address, port, 0.3) == "open":
                opened.append(what)

    readers = [threading.Thread(target=read, args=row) for row in scene.forbidden()]
    for reader in readers:
        reader.start()
    said = [scene.attack(name) for _ in range(20)]
    wait_for(lambda: all(tries.count(row[0]) > 5 for row in scene.forbidden()), 20, "the readers to have read")
    stop.set()
    for reader in readers:
        reader.join()
    assert opened == []
    passed_by = "flush ruleset" in ATTACKS[name]
    assert all(text == "" if passed_by else "Operation not permitted" in text for text in said), said
    assert scene.wrong() == []
    assert machine.run("nft", "list", "table", "inet", "moat").count("\n") == rules.count("\n")


@pytest.mark.parametrize("name", ATTACKS)
def test_without_an_owned_table_all_is_back_within_a_second(machine, scene, name):
    """Older kernels have none: the loss is seen and repaired."""
    machine.start(env={"MOAT_FAULT": "nat.owner"})
    scene = scene()
    assert scene.wrong() == []
    for _ in range(2):
        watcher = machine.rpc().subscribe()
        with Stopwatch() as watch:
            assert scene.attack(name) == ""
            event = watcher.event_where(lambda event: event["type"] == "repaired")
        assert event and watch.ms < 1000 * PATIENCE, (event, watch.ms)
        assert scene.wrong() == []
