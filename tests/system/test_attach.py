# SPDX-License-Identifier: GPL-2.0-or-later
"""moat attach, detach, ps, inspect, exec: guests whose namespace somebody else made."""

import contextlib
import json
import os
import re
import select
import signal
import sqlite3
import subprocess

import pytest

import dns
import servers
import topology
from netns import Net, Namespace, alive
from wait import PATIENCE, Stopwatch, wait_for


@pytest.fixture
def pinned(host):
    """A namespace that is kept by a file, as `ip netns add` and container engines do."""
    space = Namespace("pinned")
    path = os.path.join(host.temporary("pins"), "ns")
    open(path, "w", encoding="ascii").close()
    # The pin has to be where moatd sees it: in the host's mount namespace.
    host.run("mount", "--bind", f"/proc/{space.pid}/ns/net", path)
    space.close()
    yield path
    host.run("umount", path, check=False)


def bring_up(host, path, *command):
    return host.run("nsenter", f"--net={path}", *command)


# By what a namespace is named

def test_attach_by_path(host, pinned):
    outcome = host.moat("attach", "box", "--network", "default", "--netns", pinned)
    info = host.call("guest.get", name="box")
    assert info["kind"] == "netns" and info["netns"] == pinned
    endpoint = info["endpoints"][0]
    assert endpoint["interface"] == "eth0"
    assert endpoint["ip"] in bring_up(host, pinned, "ip", "-4", "address", "show", "eth0")
    assert "0% packet loss" in bring_up(host, pinned, "ping", "-c", "1", "-W", "2", topology.INTERNET)
    assert "box" in outcome.out or endpoint["ip"] in outcome.out or outcome.out == ""
    host.moat("detach", "box")
    wait_for(lambda: "eth0" not in bring_up(host, pinned, "ip", "-br", "link"), 2, "the link to be gone")


def test_attach_by_a_path_in_proc(host):
    """What `docker inspect` and `ip netns pids` users have at hand; and a path relative to where the user is."""
    space = host.guest_space()
    host.moat("attach", "box", "--network", "default", "--netns", space.net_path)
    assert space.ping(topology.INTERNET)
    host.moat("detach", "box")
    host.moat("attach", "box", "--network", "default", "--netns", "ns/net", cwd=f"/proc/{space.pid}")
    assert space.ping(topology.INTERNET)


def test_attach_by_pid(host):
    space = host.guest_space()
    host.moat("attach", "box", "--network", "default", "--pid", space.pid)
    info = host.call("guest.get", name="box")
    assert info["pid"] == space.pid
    assert space.addresses("eth0") == [info["endpoints"][0]["ip"]]
    assert space.ping(topology.INTERNET)


def test_attach_by_descriptor(host):
    space = host.guest_space()
    fd = os.open(space.net_path, os.O_RDONLY)
    with host.rpc() as connection:
        info = connection.call("guest.attach", _fds=[fd], name="box", kind="netns", netns_fd=True, networks=[{"name": "default"}])
    os.close(fd)
    assert space.addresses("eth0") == [info["endpoints"][0]["ip"]]
    assert space.ping(topology.INTERNET)
    assert "box" in host.guest_names(), "a guest that is not ephemeral went with its connection"


def attach_by_descriptor(host, space, name="box"):
    fd = os.open(space.net_path, os.O_RDONLY)
    with host.rpc() as connection:
        info = connection.call("guest.attach", _fds=[fd], name=name, kind="netns", netns_fd=True, networks=[{"name": "default"}])
    os.close(fd)
    return info


def test_guest_by_descriptor_can_what_others_can(host):
    """The namespace is found again though nobody named it, by the next moatd too."""
    space = host.guest_space()
    host.moat("net", "create", "side")
    assert attach_by_descriptor(host, space)["pid"] is None
    for _ in range(2):
        host.moat("attach", "box", "--network", "side")
        assert space.addresses("eth1")
        host.moat("localhost", "box", "on")
        assert "127.0.0.1" in space.run("nft", "list", "ruleset")
        host.moat("localhost", "box", "off")
        host.moat("detach", "box", "--network", "side")
        wait_for(lambda: "eth1" not in space.links(), 2, "eth1 to be gone")
        host.restart()
    assert host.guest_names() == ["box"]


def test_guest_by_descriptor_on_an_older_kernel(machine, internet):
    """Without handles a process or a mount in it shows the way; where there is none, that is said."""
    machine.start(env={"MOAT_FAULT": "link.handle"})
    host, space = machine, machine.guest_space()
    host.moat("net", "create", "side")
    attach_by_descriptor(host, space)
    host.moat("attach", "box", "--network", "side")
    host.moat("localhost", "box", "on")
    assert space.addresses("eth1") and "127.0.0.1" in space.run("nft", "list", "ruleset")
    keeper = os.open(space.net_path, os.O_RDONLY)
    try:
        space.holder.kill()
        space.holder.wait()
        wait_for(lambda: not space.pids(), 3, "the namespace to be empty")
        host.refused("localhost", "box", "off", says=["can't be reached", "6.18"])
        assert host.guest_names() == ["box"]
        host.restart()
        assert host.guest_names() == ["box"], "its links say that it lives"
    finally:
        os.close(keeper)
    wait_for(lambda: host.guest_names() == [], 3, "the guest to end with its namespace")


def test_guest_by_descriptor_gets_its_link_back(host):
    space = host.guest_space()
    info = attach_by_descriptor(host, space)
    host.ip("link", "del", info["endpoints"][0]["host_interface"])
    wait_for(lambda: "eth0" in space.links() and space.ping(topology.INTERNET), 3, "the link to be made again")


def test_guest_by_descriptor_ends_with_its_namespace(host):
    """Nothing that moatd keeps of the namespace keeps it alive."""
    space = host.guest_space()
    attach_by_descriptor(host, space)
    space.close()
    wait_for(lambda: host.guest_names() == [], 3, "the guest to be gone")


# A process that moves to a namespace of its own when it is told to.
MOVER = """import ctypes, sys
print("ready", flush=True)
sys.stdin.readline()
assert ctypes.CDLL(None).unshare(0x40000000) == 0
print("moved", flush=True)
sys.stdin.read()
"""


def test_a_process_that_is_elsewhere_now(host):
    """The number leads to another namespace; what was attached lives on, and its guest with it."""
    space = host.guest_space()
    host.moat("net", "create", "side")
    process = space.popen("/usr/bin/python3", "-c", MOVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        host.moat("attach", "box", "--network", "default", "--pid", process.pid)
        host.moat("exec", "box", "true")
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "moved\n"
        info = host.call("guest.get", name="box")
        assert info["pid"] is None and info["netns"] is None
        assert host.call("guest.list")[0]["pid"] is None
        host.refused("exec", "box", "true", code=125, says="namespace of the guest box")
        host.moat("attach", "box", "--network", "side")
        assert space.addresses("eth1")
        host.moat("localhost", "box", "on")
        assert "127.0.0.1" in space.run("nft", "list", "ruleset")
    finally:
        process.kill()
        process.communicate()


def test_a_number_that_another_process_has_now(host):
    """The same namespace, but a process that started at another time: its files are not the guest's."""
    space = host.guest_space()
    host.moat("attach", "box", "--network", "default", "--pid", space.pid)
    host.stop()
    with contextlib.closing(sqlite3.connect(os.path.join(host.state_dir, "moat.db"))) as store:
        store.execute("UPDATE guest SET pid_start = pid_start - 1")
        store.commit()
    host.start()
    assert host.call("guest.get", name="box")["pid"] is None
    host.refused("exec", "box", "true", code=125, says="namespace of the guest box")


def test_a_path_that_leads_elsewhere_now(host, pinned):
    space = host.guest_space()
    host.moat("attach", "box", "--network", "default", "--netns", pinned)
    host.run("mount", "--bind", space.net_path, pinned)
    assert host.call("guest.get", name="box")["netns"] is None
    host.refused("exec", "box", "true", code=125, says="namespace of the guest box")
    host.run("umount", pinned)
    assert host.call("guest.get", name="box")["netns"] == pinned
    host.moat("exec", "box", "true")


def test_attach_by_descriptors_of_one_line(host):
    """Requests of a batch take the line's descriptors one after the other."""
    spaces = [host.guest_space() for _ in range(3)]
    fds = [os.open(space.net_path, os.O_RDONLY) for space in spaces]
    batch = [{"jsonrpc": "2.0", "id": i, "method": "guest.attach",
              "params": {"name": f"box{i}", "kind": "netns", "netns_fd": True, "networks": [{"name": "default"}]}} for i in range(4)]
    with host.rpc() as connection:
        connection.send(batch, fds)
        answers = sorted(connection.receive(), key=lambda answer: answer["id"])
    for fd in fds:
        os.close(fd)
    for answer, space in zip(answers, spaces):
        assert space.addresses("eth0") == [answer["result"]["endpoints"][0]["ip"]]
    assert answers[3]["error"]["data"]["field"] == "netns_fd", "more requests than descriptors"


def test_ephemeral_guest_goes_with_its_connection(host):
    space = host.guest_space()
    connection = host.rpc()
    info = connection.call("guest.attach", name="box", kind="netns", pid=space.pid, networks=[{"name": "default"}], ephemeral=True,
                           ports=["8080:80"])
    assert space.ping(topology.INTERNET)
    connection.close()
    wait_for(lambda: host.guest_names() == [], 2, "the ephemeral guest to be gone")
    wait_for(lambda: info["endpoints"][0]["host_interface"] not in host.links(), 2, "its link to be gone")
    wait_for(lambda: "eth0" not in space.links(), 2, "the link in the guest to be gone")


def test_attached_guest_keeps_its_own_things(host):
    """What was there before in the namespace stays: interfaces, routes, lo's state."""
    space = host.guest_space()
    space.ip("link", "add", "mine", "type", "veth", "peer", "name", "mine2")
    space.ip("address", "add", "172.31.0.1/24", "dev", "mine")
    space.ip("link", "set", "mine", "up")
    space.ip("route", "add", "172.30.0.0/16", "dev", "mine")
    host.moat("attach", "box", "--network", "default", "--pid", space.pid)
    host.moat("detach", "box")
    wait_for(lambda: set(space.links()) == {"lo", "mine", "mine2"}, 2, lambda: f"only its own links: {set(space.links())}")
    assert [r["dst"] for r in space.ip_json("route", "show") if r["dst"] != "172.31.0.0/24"] == ["172.30.0.0/16"]


# What is refused

def test_host_namespace_is_refused(host):
    """A guest in the host's own namespace would cut the host off."""
    before = host.kernel()
    error = host.error("guest.attach", name="box", kind="netns", pid=host.pid, networks=[{"name": "default"}])
    assert error.code in (-32602, -32000), str(error)
    assert not before.differences(host.kernel())


def test_one_namespace_for_two_guests_is_refused(host):
    space = host.guest_space()
    host.moat("attach", "one", "--network", "default", "--pid", space.pid)
    outcome = host.refused("attach", "two", "--network", "default", "--pid", space.pid)
    assert "one" in outcome.err, f"does not name the guest that has the namespace:\n{outcome}"
    assert host.guest_names() == ["one"]


@pytest.mark.parametrize("path, reason", [("/no/such/namespace", "not_found"), ("/etc/passwd", None), ("/proc/self/ns/uts", None),
                                          ("/", None)])
def test_paths_that_are_no_namespace(host, path, reason):
    error = host.error("guest.attach", name="box", kind="netns", netns=path, networks=[{"name": "default"}])
    if reason:
        assert error.reason == reason
    else:
        assert error.field == "netns" or error.reason in ("not_found", "not_supported"), str(error)
    host.refused("attach", "box", "--network", "default", "--netns", path, code=1 if reason else 2, says=path)
    assert host.guest_names() == []


def test_dead_process_is_refused(host):
    child = subprocess.Popen(["true"])
    child.wait()
    assert host.error("guest.attach", name="box", kind="netns", pid=child.pid, networks=[{"name": "default"}]).reason == "not_found"
    host.refused("attach", "box", "--network", "default", "--pid", child.pid, says=str(child.pid))


def test_descriptor_that_is_no_namespace_is_refused(host):
    for path in ("/etc/passwd", "/proc/self/ns/mnt"):
        fd = os.open(path, os.O_RDONLY)
        with host.rpc() as connection:
            error = connection.error("guest.attach", _fds=[fd], name="box", kind="netns", netns_fd=True,
                                     networks=[{"name": "default"}])
        os.close(fd)
        assert error.field == "netns_fd" or error.reason, str(error)
    assert host.guest_names() == []


def test_missing_descriptor_is_refused(host):
    error = host.error("guest.attach", name="box", kind="netns", netns_fd=True, networks=[{"name": "default"}])
    assert error.code == -32602 and error.field == "netns_fd"


def test_exactly_one_namespace_has_to_be_given(host):
    space = host.guest_space()
    for params in ({}, {"pid": space.pid, "netns": "/proc/self/ns/net"}, {"pid": space.pid, "netns_fd": True}):
        assert host.error("guest.attach", name="box", kind="netns", networks=[{"name": "default"}], **params).code == -32602
    assert host.moat("attach", "box", "--network", "default", "--pid", space.pid, "--netns", "/x", check=False).code == 2


def test_unknown_network_and_taken_name(host):
    space, other = host.guest_space(), host.guest_space()
    assert host.error("guest.attach", name="box", kind="netns", pid=space.pid, networks=[{"name": "nowhere"}]).reason == "not_found"
    host.moat("attach", "box", "--network", "default", "--pid", space.pid)
    error = host.error("guest.attach", name="box", kind="netns", pid=other.pid, networks=[{"name": "default"}])
    assert error.reason == "exists"
    assert set(other.links()) == {"lo"}


# More networks, less networks

def test_one_more_network_while_it_runs(host):
    host.call("network.create", name="blue", subnet="10.9.0.0/24")
    guest = host.attach_guest("box")
    peer = host.attach_guest("peer", network="blue")
    host.moat("attach", "box", "--network", "blue,ip=10.9.0.77,alias=second")
    guest.refresh()
    assert [(e["network"], e["interface"]) for e in guest.info["endpoints"]] == [("default", "eth0"), ("blue", "eth1")]
    assert guest.addresses("eth1") == ["10.9.0.77"]
    assert guest.ping(peer.ip_address) and guest.ping(topology.INTERNET)
    assert dns.ask(peer, "10.9.0.1", "second").data == ["10.9.0.77"]
    default, = [r for r in guest.ip_json("route", "show") if r["dst"] == "default"]
    assert default["dev"] == "eth0"


def test_detach_from_one_network(host):
    host.call("network.create", name="blue")
    guest = host.attach_guest("box", "-p", "8080:80")
    host.moat("attach", "box", "--network", "blue")
    host.moat("detach", "box", "--network", "blue")
    assert [e["network"] for e in guest.refresh().info["endpoints"]] == ["default"]
    wait_for(lambda: "eth1" not in guest.links(), 2, "the second link to be gone")
    assert guest.ping(topology.INTERNET)
    with servers.TcpServer(guest, 80, name="box"):
        assert servers.tcp_greeting(host, topology.HOST, 8080)[0] == "box"
    host.moat("attach", "box", "--network", "blue")
    assert guest.refresh().endpoint("blue")["interface"] == "eth1"


def test_connections_on_other_networks_go_on(host, internet):
    """Joining and leaving is felt by nobody else: each connection is used after every step."""
    host.call("network.create", name="blue")
    host.call("network.create", name="green")
    guest = host.attach_guest("box")
    peers = {name: host.attach_guest(f"peer-{name}", network=name) for name in ("default", "blue")}
    with contextlib.ExitStack() as stack:
        open_ones = []

        def dial(net, address, port):
            sock = stack.enter_context(servers.connect(net, address, port))
            servers.read_line(sock)
            open_ones.append(sock)

        def all_go_on():
            for number, sock in enumerate(open_ones):
                sock.sendall(b"still there\n")
                assert servers.read_line(sock) == "still there", f"connection {number} broke"

        for peer in peers.values():
            stack.enter_context(servers.TcpServer(peer, 7, name="peer"))
        stack.enter_context(servers.TcpServer(guest, 8, name="box"))
        dial(guest, peers["default"].ip_address, 7)
        dial(peers["default"], guest.ip_address, 8)
        dial(guest, topology.INTERNET, 7)
        host.moat("attach", "box", "--network", "blue")
        dial(guest, peers["blue"].ip_address, 7)
        all_go_on()
        host.moat("attach", "box", "--network", "green")
        all_go_on()
        host.moat("detach", "box", "--network", "green")
        all_go_on()
        blue, = [sock for sock in open_ones if sock.getpeername()[0] == peers["blue"].ip_address]
        open_ones[:] = [blue]
        host.moat("detach", "box", "--network", "default")
        all_go_on()
        assert guest.ping(topology.INTERNET), "the next network did not take the default route over"


def test_detach_from_a_network_that_it_is_not_on(host):
    host.call("network.create", name="blue")
    host.attach_guest("box")
    assert host.error("guest.detach", name="box", network="blue").reason == "not_found"
    host.refused("detach", "box", "--network", "blue", says="blue")
    assert host.error("guest.detach", name="nobody").reason == "not_found"


def test_a_network_twice_for_one_guest(host):
    host.attach_guest("box")
    error = host.error("guest.attach", name="box", networks=[{"name": "default"}])
    assert error.reason == "exists" and "default" in error.message


def test_detach_frees_all_at_once(host):
    for _ in range(5):
        guest = host.attach_guest("box", "-p", "8080:80", network="default,ip=10.88.0.50")
        host.moat("detach", "box")
        eth0 = guest.links().get("eth0")
        assert not eth0 or not guest.ping(guest.gateway, timeout=0.1), "the link works when detach has answered"
        guest.space.close()


def test_detach_answers_quickly(host):
    space = host.guest_space()
    times = []
    for i in range(20):
        host.call("guest.attach", name="box", kind="netns", pid=space.pid, networks=[{"name": "default"}])
        with Stopwatch() as watch:
            host.call("guest.detach", name="box")
        times.append(watch.ms)
    assert sorted(times)[10] < 10 * PATIENCE, f"detach takes {sorted(times)[10]:.1f} ms"


def test_reattach_at_once(host):
    """The reaper may still be deleting the former link; that is not the caller's concern."""
    space = host.guest_space()
    for i in range(30):
        info = host.call("guest.attach", name="box", kind="netns", pid=space.pid, networks=[{"name": "default"}])
        assert space.addresses("eth0") == [info["endpoints"][0]["ip"]]
        host.call("guest.detach", name="box")


def test_rejoin_at_once_by_another_network(host):
    """The dying link of one network has the default route that the next one wants, under another name."""
    space = host.guest_space()
    host.moat("net", "create", "n2")
    host.moat("net", "create", "n6", "--ipv6")
    for i in range(10):
        host.call("guest.attach", name="box", kind="netns", pid=space.pid,
                  networks=[{"name": "n6"}, {"name": "n2"}])
        host.call("guest.detach", name="box", network="n6")
        host.call("guest.attach", name="box", networks=[{"name": "n6"}])
        host.call("guest.detach", name="box", network="n2")
        host.call("guest.detach", name="box")
        info = host.call("guest.attach", name="box", kind="netns", pid=space.pid, networks=[{"name": "n2"}])
        route = space.run("ip", "-4", "route", "show", "default")
        assert f"via {info['endpoints'][0]['gateway']} " in route and "linkdown" not in route, route
        host.call("guest.detach", name="box")


# What ends by itself

def test_namespace_that_disappears_is_noticed(host):
    guest = host.attach_guest("box", "-p", "8080:80")
    stream = host.rpc().subscribe()
    guest.space.close()
    with Stopwatch() as watch:
        wait_for(lambda: host.guest_names() == [], 3, "the guest to be gone from moat ps")
    assert watch.ms < 1000 * PATIENCE
    event = stream.event_where(lambda e: e.get("guest") == "box")
    assert event["type"].startswith("guest."), event
    assert servers.bound(host, 1, "0.0.0.0", 8080).close() is None
    assert dns.ask(host, "10.88.0.1", "box").rcode == "NXDOMAIN"


def test_pinned_namespace_outlives_its_process(host):
    """The process ends, the namespace is kept by somebody: the guest stays."""
    space = host.guest_space()
    keep = os.open(space.net_path, os.O_RDONLY)
    try:
        host.moat("attach", "box", "--network", "default", "--pid", space.pid)
        space.holder.kill()
        space.holder.wait()
        net = Net(f"/proc/{os.getpid()}/fd/{keep}")
        assert net.ping(topology.INTERNET)
        assert host.guest_names() == ["box"]
    finally:
        os.close(keep)
    wait_for(lambda: host.guest_names() == [], 3, "the guest to be gone with its namespace")


def test_link_deleted_inside_is_made_again(host):
    """Root inside deletes its own interface; the guest is still there, so its network comes back."""
    guest = host.attach_guest("box")
    guest.ip("link", "del", "eth0")
    wait_for(lambda: "eth0" in guest.links() and guest.ping(topology.INTERNET, timeout=0.2), 3, "the guest's link to be repaired")
    assert guest.addresses("eth0") == [guest.ip_address]
    assert guest.refresh().endpoint()["host_interface"] in host.links()


# Looking

def test_ps(host):
    host.call("network.create", name="blue")
    web = host.attach_guest("web", "-p", "8080:80", "-p", "127.0.0.1:9000-9009:90-99/udp")
    host.moat("attach", "web", "--network", "blue")
    host.attach_guest("out", "--mode", "outbound")
    lines = host.moat("ps").out.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "MODE", "NETWORKS", "ADDRESSES", "PORTS", "STATE"]
    row = next(line for line in lines if line.startswith("web"))
    for word in ("netns", "full", "default", "blue", web.ip_address, "8080", "127.0.0.1:9000-9009", "udp", "running"):
        assert word in row, f"{word} is missing in: {row}"
    assert "outbound" in next(line for line in lines if line.startswith("out"))
    assert sorted(host.moat("ps", "-q").out.split()) == ["out", "web"]
    assert host.moat("ps", "--json").json == host.call("guest.list")


def test_ps_without_guests(host):
    assert len(host.moat("ps").out.splitlines()) == 1
    assert host.moat("ps", "-q").out == "" and host.moat("ps", "--json").json == []


def test_inspect(host):
    host.attach_guest("one")
    host.attach_guest("two")
    shown = host.moat("inspect", "two", "one").json
    assert [guest["name"] for guest in shown] == ["two", "one"]
    assert shown[0] == host.call("guest.get", name="two")
    host.refused("inspect", "one", "three", says="three")
    assert host.error("guest.get", name="three").reason == "not_found"


# exec

def test_exec_in_the_network_of_a_guest(host):
    guest = host.attach_guest("box")
    assert guest.ip_address in guest.exec("ip", "-4", "address", "show", "eth0").out


def test_exec_in_the_files_of_a_guest(host):
    guest = host.run_guest("web", "--add-host", "db:192.0.2.9")
    # `moat run` writes them when it has its address: the guest is seen a moment earlier.
    wait_for(lambda: "192.0.2.9" in guest.exec("cat", "/etc/hosts").out, 2, "the guest's hosts file")
    wait_for(lambda: "nameserver 10.88.0.1" in guest.exec("cat", "/etc/resolv.conf").out, 2, "its resolv.conf")


def test_exec_sees_the_guests_processes(host):
    guest = host.run_guest("web")
    wait_for(lambda: "sleep" in guest.exec("sh", "-c", "cat /proc/[0-9]*/comm").out.split(), 2, "the guest's command to be seen")


@pytest.mark.parametrize("script, status", [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
def test_exec_passes_the_status(host, script, status):
    guest = host.run_guest("web")
    assert guest.exec("sh", "-c", script, check=False).code == status
    assert guest.job.process.poll() is None


def test_exec_failures(host):
    guest = host.run_guest("web")
    assert guest.exec("no-such-command", check=False).code == 127
    assert guest.exec("/etc/passwd", check=False).code == 126
    outcome = host.moat("exec", "nobody", "--", "true", check=False)
    assert outcome.code == 125 and "nobody" in outcome.err
    assert host.moat("exec", "web", "--", "true", check=False, env={"MOAT_SOCKET": "/no/socket"}).code == 125


def test_exec_passes_input_and_keeps_the_user(host):
    host.run_guest("web")
    assert host.moat("exec", "web", "--", "cat", input="hello\n").out == "hello\n"
    assert host.moat("exec", "web", "--", "id", "-u").line == "0"
    assert host.moat("exec", "web", "-u", "1234:4321", "--", "sh", "-c", "id -u; id -g").out.split() == ["1234", "4321"]
    assert host.moat("exec", "web", "cat", "--version").out.startswith("cat")


@pytest.mark.parametrize("kind", ["run", "attached"])
def test_exec_in_a_directory_and_with_variables(host, kind):
    if kind == "run":
        host.run_guest("web")
    else:
        host.attach_guest("web")
    words = ["-w", "/etc", "-e", "A=b=c", "-e", "ONE=1", "-e", "ONE=2", "-e", "MINE", "-e", "NOBODYS", "-e", "EMPTY="]
    script = 'pwd; echo "$A $ONE $MINE ${NOBODYS-unset} [${EMPTY-unset}]"'
    outcome = host.moat("exec", "web", *words, "--", "sh", "-c", script, env={"MINE": "here"})
    assert outcome.out == "/etc\nb=c 2 here unset []\n"
    assert host.moat("exec", "-w", "sub/..", "web", "pwd", check=False).code == 125, "a directory that is not there"
    outcome = host.moat("exec", "web", "-w", "/no/such/dir", "--", "echo", "ran", check=False)
    assert outcome.code == 125 and outcome.out == "" and "/no/such/dir" in outcome.err
    assert host.moat("exec", "web", "-e", "=x", "--", "true", check=False).code == 2


def test_exec_inherits_no_descriptors(host):
    host.run_guest("web")
    with open("/etc/passwd", "rb") as leak:
        os.set_inheritable(leak.fileno(), True)
        outcome = host.spawn("exec", "web", "--", "sh", "-c", "ls /proc/$$/fd", pass_fds=(leak.fileno(),)).finish()
    assert {int(fd) for fd in outcome.out.split()} <= {0, 1, 2, 10}


def test_executed_commands_end_with_their_guest(host):
    guest = host.run_guest("web")
    job = host.spawn("exec", "web", "--", "sleep", "4714")
    wait_for(lambda: "4714" in guest.exec("sh", "-c", "cat /proc/[0-9]*/cmdline", check=False).out, 3, "the command to run")
    guest.job.send(signal.SIGTERM)
    guest.job.finish()
    assert job.finish(5).code in (137, 128 + 9)


def test_killed_exec_takes_its_command_along(host):
    guest = host.run_guest("web")
    job = host.spawn("exec", "web", "--", "sh", "-c", "echo $$; exec sleep 4715")
    job.process.stdout.readline()
    job.send(signal.SIGTERM)
    assert job.finish().code == 143
    assert "4715" not in guest.exec("sh", "-c", "cat /proc/[0-9]*/cmdline", check=False).out


# moat localhost

def test_localhost(host, internet):
    """127.0.0.1:PORT inside reaches the gateway where nothing local listens."""
    with servers.TcpServer(host, 9999, "10.88.0.1", "host"):
        guest = host.attach_guest("box")
        other = host.attach_guest("web", "-p", "8080:80")
        with servers.TcpServer(other, 80, name="web"):
            assert servers.unreachable(guest, "tcp", "127.0.0.1", 8080)
            host.moat("localhost", "box", "on")
            assert servers.tcp_greeting(guest, "127.0.0.1", 8080)[0] == "web"
            with servers.TcpServer(guest, 7000, "127.0.0.1", "local"):
                assert servers.tcp_greeting(guest, "127.0.0.1", 7000)[0] == "local", "a local listener was passed by"
            assert servers.unreachable(guest, "tcp", "127.0.0.1", 9999), "the host's services were opened"
            host.moat("localhost", "box", "off")
            assert servers.unreachable(guest, "tcp", "127.0.0.1", 8080)
    assert guest.run("nft", "list", "ruleset").strip() == "", "rules stay in the guest"
    assert guest.sysctl("ipv4/conf/eth0/route_localnet") == "0"


@pytest.mark.parametrize("subnet, option", [(1, None), (2, "--isolated"), (3, "--internal")])
def test_localhost_refuses_at_once(host, subnet, option, bridge_nf):
    """A port that the gateway refuses looks like a closed one: a reset, or port unreachable, at the first packet.

    Each time with other addresses: the kernel bounds the errors that an address is sent, tests ago included.
    """
    host.moat("net", "create", "blue", "--subnet", f"10.77.{subnet + 10 * bridge_nf}.0/24", *([option] if option else []))
    guest = host.attach_guest("box", network="blue")
    with servers.TcpServer(host, 9999, guest.gateway, "host"):
        host.moat("localhost", "box", "on")
        for port in (1234, 9999):
            assert all(servers.refused(guest, "tcp", "127.0.0.1", port) for _ in range(10)), port
            assert servers.refused(guest, "udp", "127.0.0.1", port), port
    with servers.connect(guest, "127.0.0.1", 53):
        pass  # the name service does answer
    host.moat("net", "create", "mute", "--no-dns", *([option] if option else []))
    mute = host.attach_guest("mute", network="mute")
    host.moat("localhost", "mute", "on")
    assert servers.refused(mute, "tcp", "127.0.0.1", 53)
    host.run("nft", "list", "ruleset")


def test_what_localhost_refuses_is_told_by_that_name(host):
    guest = host.attach_guest("box", "--log-denied")
    host.moat("localhost", "box", "on")
    events = host.rpc()
    events.subscribe()
    assert servers.refused(guest, "tcp", "127.0.0.1", 1234)
    event = events.event_where(lambda event: event["type"] == "connection.denied")
    assert (event["denied"]["ip"], event["denied"]["port"]) == ("127.0.0.1", 1234), event


def test_localhost_outlives_a_restart(host):
    guest = host.attach_guest("box")
    other = host.attach_guest("web", "-p", "8080:80")
    host.moat("localhost", "box", "on")
    host.restart()
    with servers.TcpServer(other, 80, name="web"):
        assert servers.tcp_greeting(guest, "127.0.0.1", 8080)[0] == "web"


def test_localhost_of_nobody(host):
    assert host.error("localhost.set", guest="nobody", enabled=True).reason == "not_found"
    assert host.moat("localhost", "nobody", "perhaps", check=False).code == 2


# Events

def test_events_of_one_guest(host):
    job = host.spawn("events", "--guest", "web", "--json")
    rpc, every = host.rpc(), host.rpc().subscribe()
    assert rpc.call("events.subscribe", guest="web") == {}

    def happen():
        """Until the command has subscribed."""
        for name in ("other", "web"):
            host.run_guest(name).end()
        return select.select([job.process.stdout], [], [], 0)[0]

    wait_for(happen, 10, "the command to print an event")
    assert json.loads(job.process.stdout.readline())["guest"] == "web"
    assert [rpc.next_event()["guest"] for _ in range(2)] == ["web", "web"]
    assert [every.next_event()["guest"] for _ in range(4)] == ["other", "other", "web", "web"]
    assert host.error("events.subscribe", guest="No Name").field == "guest"


def test_the_last_subscription_counts(host):
    rpc = host.rpc()
    rpc.call("events.subscribe", guest="web")
    host.call("network.create", name="blue")
    rpc.call("events.subscribe")
    host.call("network.create", name="green")
    assert rpc.next_event()["network"] == "green"


def test_events_as_lines(host):
    job = host.spawn("events")
    wait_for(lambda: alive(job.pid), 2)
    lines = []

    def saw(word):
        host.call("network.create", name="blue")
        host.call("network.remove", name="blue")
        while select.select([job.process.stdout], [], [], 0.1)[0]:
            lines.append(job.process.stdout.readline())
        return any(word in line for line in lines)

    wait_for(lambda: saw("blue"), 5, lambda: f"a line about the network; shown: {lines}")
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in lines), lines
    job.send(signal.SIGINT)
    assert job.finish().code in (0, 130, -signal.SIGINT)


def test_events_of_a_guests_life(host):
    stream = host.rpc().subscribe()
    host.attach_guest("box", "-p", "8080:80")
    host.moat("port", "rm", "box", "8080:80")
    host.moat("detach", "box")
    seen = [stream.event_where(lambda e: e.get("guest") == "box")]
    while not seen[-1]["type"].endswith(("detached", "removed", "gone", "ended")):
        seen.append(stream.event_where(lambda e: e.get("guest") == "box"))
    assert all(set(event) >= {"time", "type"} for event in seen)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]) for event in seen)
    assert len(seen) >= 2


def test_many_subscribers(host):
    streams = [host.rpc().subscribe() for _ in range(10)]
    host.call("network.create", name="blue")
    for stream in streams:
        stream.event_where(lambda e: e.get("network") == "blue")


def test_attach_limits(host):
    space = host.guest_space()
    for i in range(16):
        host.call("network.create", name=f"n{i}", subnet=f"10.9.{i}.0/24")
    names = [{"name": f"n{i}"} for i in range(16)]
    assert len(host.call("guest.attach", name="box", kind="netns", pid=space.pid, networks=names)["endpoints"]) == 16
    assert host.error("guest.attach", name="box", networks=[{"name": "default"}]).reason == "quota"
    error = host.error("guest.attach", name="other", kind="netns", pid=host.guest_space().pid,
                       networks=names + [{"name": "default"}])
    assert error.field == "networks" or error.reason == "quota"


def test_exec_in_a_guest_that_was_attached_by_path(host, pinned):
    """It has no process: the network is its own, the files are those of the host."""
    host.moat("attach", "box", "--network", "default", "--netns", pinned)
    address = host.call("guest.get", name="box")["endpoints"][0]["ip"]
    assert address in host.moat("exec", "box", "--", "ip", "-4", "address", "show", "eth0").out
    host.moat("detach", "box")
