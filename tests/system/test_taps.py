# SPDX-License-Identifier: GPL-2.0-or-later
"""Taps: made, marked, opened by a VMM under whatever user, there again after everything."""

import os
import sys

import pytest

import topology
import vmm
from wait import wait_for


@pytest.fixture
def machines(host):
    opened = []

    def make(name, **kwargs):
        opened.append(vmm.Machine(host, name, **kwargs))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def configure(machine, interface=0):
    """Set up by hand what `attach --json` says."""
    card = machine.info["vmm"]["interfaces"][interface]
    inner = f"eth{interface}"
    machine.up(inner)
    if card["address"]:
        machine.ip("address", "add", card["address"], "dev", inner)
    if card["gateway"]:
        machine.ip("route", "add", "default", "via", card["gateway"])
    return machine


def test_a_tap_is_a_guest(host, machines):
    outcome = host.moat("attach", "vm", "--network", "default", "--tap", "--json").json
    endpoint = outcome["endpoints"][0]
    tap = endpoint["host_interface"]
    assert outcome["kind"] == "tap" and endpoint["interface"] is None and outcome["netns"] is None
    link = host.links()[tap]
    assert link["linkinfo"]["info_data"]["type"] == "tap" and link["linkinfo"]["info_data"]["persist"]
    assert link["master"] == "moat0" and "UP" in link["flags"]
    machine = configure(machines("vm"))
    peer = host.attach_guest("peer")
    assert machine.ping(endpoint["gateway"])
    assert machine.ping(topology.INTERNET)
    assert machine.ping(peer.ip_address) and peer.ping(endpoint["ip"])
    host.moat("detach", "vm")
    wait_for(lambda: tap not in host.links(), 2, "the tap to be gone")


def test_what_a_vmm_needs(host):
    guest = host.moat("attach", "vm", "--network", "default", "--tap=tap-vm", "--json").json
    endpoint = guest["endpoints"][0]
    card = guest["vmm"]["interfaces"][0]
    assert card == {"tap": "tap-vm", "mac": endpoint["mac"], "address": f"{endpoint['ip']}/16", "gateway": "10.88.0.1",
                    "address6": None, "gateway6": None, "dns": ["10.88.0.1"], "mtu": 1500}
    assert guest["vmm"]["network-interfaces"] == [
        {"iface_id": "eth0", "guest_mac": endpoint["mac"], "host_dev_name": "tap-vm"}]
    assert guest["vmm"]["kernel_ip"] == f"ip={endpoint['ip']}::10.88.0.1:255.255.0.0:vm:eth0:off:10.88.0.1::"
    assert host.call("guest.get", name="vm")["vmm"] == guest["vmm"]
    assert host.moat("inspect", "vm").json[0]["vmm"] == guest["vmm"]


def test_a_namespace_guest_has_the_shape_of_the_contract(host):
    guest = host.attach_guest("g")
    assert set(guest.info) == {"id", "name", "kind", "mode", "state", "netns", "netns_inode", "pid", "endpoints", "ports", "policy",
                               "labels", "created"}


def test_owner_group_and_kinds(host):
    host.moat("attach", "vm", "--network", "default", "--tap=tapx", "--tap-owner", "4242:4343", "--multi-queue", "--vnet-hdr")
    data = host.links()["tapx"]["linkinfo"]["info_data"]
    assert data["user"] == 4242 and data["group"] == 4343
    assert data["multi_queue"] and data["vnet_hdr"]
    with pytest.raises(OSError):
        vmm.open_tap(host.net_path, "tapx")  # a plain queue is not what it has
    queues = [vmm.open_tap(host.net_path, "tapx", vmm.IFF_MULTI_QUEUE | vmm.IFF_VNET_HDR) for _ in range(3)]
    for fd in queues:
        os.close(fd)


# The device itself may be root's alone on a machine: opened first, it leaves the tap's own owner and group to decide.
OPENER = """
import fcntl, os, struct, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
os.setgroups([])
os.setresgid(*[int(sys.argv[3])] * 3)
os.setresuid(*[int(sys.argv[2])] * 3)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))
print("opened")
"""


@pytest.mark.parametrize("owner,uid,gid,opens", [
    ("4242", 4242, 1, True), ("4242", 7, 4242, False), ("4242:4343", 4242, 4343, True), ("4242:4343", 4242, 7, False),
    ("4242:4343", 7, 4343, False), (None, 4242, 4242, False)])
def test_who_may_open_it(host, owner, uid, gid, opens):
    """With owner and group set, both must fit; without any, only who administers the host's network opens it."""
    options = ["--tap-owner", owner] if owner else []
    host.moat("attach", "vm", "--network", "default", "--tap=tapx", *options)
    outcome = host.run(sys.executable, "-c", OPENER, "tapx", str(uid), str(gid), check=False)
    assert (outcome.stdout == "opened\n") == opens, outcome.stderr


def test_the_vmm_ends_and_comes_back(host, machines):
    host.moat("attach", "vm", "--network", "default", "--tap")
    machine = configure(machines("vm"))
    assert machine.ping(topology.INTERNET)
    machine.close()
    before = what_stays(host.call("guest.get", name="vm"))
    again = configure(machines("vm"))
    assert again.ping(topology.INTERNET)
    assert what_stays(host.call("guest.get", name="vm")) == before


def what_stays(guest):
    return {key: value for key, value in guest.items() if key != "drops"}


def test_two_vmms_at_once_are_refused(host):
    host.moat("attach", "vm", "--network", "default", "--tap=tapx")
    fd = vmm.open_tap(host.net_path, "tapx")
    with pytest.raises(OSError):
        vmm.open_tap(host.net_path, "tapx")
    os.close(fd)


@pytest.mark.parametrize("mode", ["full", "outbound"])
def test_back_after_a_reboot(host, machines, mode):
    host.moat("attach", "vm", "--network", "default", "--tap=tapx", "--tap-owner", "4242", "--vnet-hdr", "--mode", mode)
    before = host.call("guest.get", name="vm")
    host.reboot()
    assert host.call("guest.get", name="vm") == before
    data = host.links()["tapx"]["linkinfo"]["info_data"]
    assert data["user"] == 4242 and data["vnet_hdr"]
    machine = configure(machines("vm", vnet_hdr=True))
    assert machine.ping(topology.INTERNET)


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_leaves_the_vmm_alone(host, machines, crash):
    host.moat("attach", "vm", "--network", "default", "--tap")
    machine = configure(machines("vm"))
    host.restart(crash=crash)
    assert machine.ping(topology.INTERNET)


def test_a_deleted_tap_comes_back(host):
    host.moat("attach", "vm", "--network", "default", "--tap=tapx")
    host.ip("link", "del", "tapx")
    wait_for(lambda: "tapx" in host.links(), 2, "the tap to be made again")


def test_the_open_tap_by_descriptor(host, machines):
    """An unprivileged VMM needs no device and no permission for it."""
    connection = host.rpc()
    result = connection.call("guest.attach", name="vm", kind="tap", networks=[{"name": "default"}],
                             tap={"fd": True, "vnet_hdr": True})
    assert len(connection.fds) == 1
    tap = connection.fds.pop()
    assert vmm.tap_flags(tap) & vmm.IFF_VNET_HDR
    machine = configure(machines("vm", tap_fd=tap, vnet_hdr=True))
    assert machine.ping(result["endpoints"][0]["gateway"])


# Descriptors of several calls

def tap_request(name, ident=True):
    request = {"jsonrpc": "2.0", "method": "guest.attach",
               "params": {"name": name, "kind": "tap", "networks": [{"name": "default"}], "tap": {"fd": True}}}
    return {**request, "id": name} if ident else request


def test_open_taps_of_one_line(host):
    """Each descriptor comes with its own answer; a notification has no answer, and so none."""
    connection = host.rpc()
    connection.send([tap_request("one"), tap_request("quiet", ident=False), tap_request("two")])
    answers = {answer["id"]: answer["result"] for answer in connection.receive()}
    assert set(answers) == {"one", "two"}
    assert [vmm.tap_name(fd) for fd in connection.fds] == [answers[name]["endpoints"][0]["host_interface"] for name in ("one", "two")]
    connection.send(tap_request("alone", ident=False))
    assert connection.call("system.status")["guests"] == 4
    assert len(connection.fds) == 2, "the descriptor of a notification came with another answer"


def names_of(connection, result, first=0):
    """The taps that came, which must be those of the answer's endpoints."""
    names = [vmm.tap_name(fd) for fd in connection.fds]
    assert names == [endpoint["host_interface"] for endpoint in result["endpoints"][first:]]
    for fd in connection.fds:
        os.close(fd)
    connection.fds = []


def test_open_taps_of_several_networks(host):
    """One for each network, in order; for those that are joined later too."""
    for i in range(15):
        host.call("network.create", name=f"n{i}")
    connection = host.rpc()
    several = [{"name": "default"}, {"name": "n0"}, {"name": "n1"}]
    names_of(connection, connection.call("guest.attach", name="vm", kind="tap", networks=several, tap={"fd": True}))
    more = connection.call("guest.attach", name="vm", networks=[{"name": "n2"}, {"name": "n3"}], tap={"fd": True})
    names_of(connection, more, first=3)
    every = [{"name": "default"}] + [{"name": f"n{i}"} for i in range(15)]
    names_of(connection, connection.call("guest.attach", name="full", kind="tap", networks=every, tap={"fd": True}))


def test_what_a_join_can_not_ask_of_taps(host):
    host.call("network.create", name="side")
    host.attach_guest("box")
    host.moat("attach", "vm", "--network", "default", "--tap")
    for name, tap, field in [("box", {"fd": True}, "tap.fd"), ("vm", {}, "tap"), ("vm", {"fd": True, "vnet_hdr": True}, "tap"),
                             ("vm", {"fd": True, "name": "tapx"}, "tap")]:
        assert host.error("guest.attach", name=name, networks=[{"name": "side"}], tap=tap).field == field
    assert [len(guest["endpoints"]) for guest in host.call("guest.list")] == [1, 1]


@pytest.mark.parametrize("options,code,says", [
    (["--tap=moat0"], 1, "moat0"),
    (["--tap=eth0"], 1, "eth0"),
    (["--tap=a/b"], 2, "interface name"),
    (["--tap=0123456789abcdef"], 2, "interface name"),
    (["--tap", "--mode", "loopback"], 1, "mode"),
    (["--tap", "--netns", "/proc/self/ns/net"], 2, "one of"),
    (["--tap", "--tap-owner", "x:y:z"], 2, ""),
])
def test_refusals(host, options, code, says):
    before = host.kernel()
    host.refused("attach", "vm", "--network", "default", *options, code=code, says=says)
    assert before.differences(host.kernel()) == []
    assert host.guest_names() == []


def test_a_tap_joins_and_leaves_networks(host, machines):
    host.moat("net", "create", "back")
    host.moat("attach", "vm", "--network", "default", "--tap")
    machine = configure(machines("vm"))
    host.moat("attach", "vm", "--network", "back")
    machine.info = host.call("guest.get", name="vm")
    assert [device["iface_id"] for device in machine.info["vmm"]["network-interfaces"]] == ["eth0", "eth1"]
    machine.connect(1)
    card = machine.info["vmm"]["interfaces"][1]
    assert card["gateway"] is None
    machine.up("eth1")
    machine.ip("address", "add", card["address"], "dev", "eth1")
    assert machine.ping(machine.info["endpoints"][1]["gateway"]) and machine.ping(topology.INTERNET)
    host.moat("detach", "vm", "--network", "back")
    assert machine.ping(topology.INTERNET)


def configure6(machine):
    """The same for IPv6, as a VMM does that knows the prefix from `attach --json` and asks nobody."""
    card = machine.info["vmm"]["interfaces"][0]
    machine.sysctl("ipv6/conf/eth0/accept_ra", 0)
    machine.up()
    machine.ip("address", "add", card["address6"], "dev", "eth0", "nodad")
    machine.ip("route", "add", "default", "via", card["gateway6"], "dev", "eth0")
    return machine


@pytest.mark.parametrize("options", [[], ["--allow", "any"], ["--mode", "outbound"]], ids=["bridged", "policy", "outbound"])
def test_ipv6_neighbours_of_a_machine_with_its_prefix_on_the_link(host, machines, options):
    """Where the port is a routed one, nobody but the host hears the machine ask for them."""
    network = host.call("network.create", name="six", ipv6=True)
    host.moat("attach", "vm", "--network", "six", "--tap", *options)
    machine = configure6(machines("vm"))
    bridged, routed = host.attach_guest("bridged", network="six"), host.attach_guest("routed", "--deny", "192.0.2.1", network="six")
    assert machine.ping(network["gateway6"])
    for peer in (bridged, routed):
        assert machine.ping(peer.endpoint()["ip6"]), peer.name
        assert peer.ping(machine.endpoint()["ip6"], timeout=0.5) == (options != ["--mode", "outbound"]), peer.name
    assert not machine.ping("fe80::2%eth0", timeout=0.3), "somebody answers for addresses beyond the subnet"


def test_names_that_no_tap_can_have(host):
    for name in ("all", "default"):
        assert host.error("guest.attach", name="vm", kind="tap", networks=[{"name": "default"}], tap={"name": name}).field == "tap.name"
