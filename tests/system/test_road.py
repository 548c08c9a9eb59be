# SPDX-License-Identifier: GPL-2.0-or-later
"""Crash, restart, reboot, failing steps: the kernel is always what the store says, and traffic never notices."""

import os
import re
import signal
import sqlite3
import subprocess
import threading

import pytest

import daemon
import dns
import rpc
import servers
import topology
import trace
from flows import Flows, TcpFlow, UdpFlow
from host import Host
from netns import alive
from wait import Stopwatch, wait_for


def fault_points():
    """The steps of an apply at which this build can fail or crash; none in a release build."""
    program = daemon.binary("moatd")
    if not program:
        return []
    outcome = subprocess.run([program, "--list-fault-points"], capture_output=True, text=True, check=False)
    return outcome.stdout.split() if outcome.returncode == 0 else []


POINTS = fault_points()
every_point = pytest.mark.parametrize("point", POINTS or [pytest.param("none", marks=pytest.mark.skip(
    "this build has no fault points (release)"))])


def populate(host):
    """A host with something of everything; the guests by name."""
    host.call("network.create", name="blue", subnet="10.9.0.0/24", labels={"a": "b"})
    host.call("network.create", name="inner", subnet="10.9.1.0/24", internal=True)
    host.call("dns.add", name="printer", ip="192.168.77.44")
    guests = {"web": host.attach_guest("web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "9000-9099:9000-9099"),
              "out": host.attach_guest("out", "--mode", "outbound"),
              "two": host.attach_guest("two", "-p", f"{topology.HOST}:8081:80", network="blue,alias=second")}
    host.moat("attach", "two", "--network", "inner")
    return guests


def intent(host):
    return {"networks": host.call("network.list"), "guests": host.call("guest.list"), "ports": host.call("port.list"),
            "names": host.call("dns.list")}


def settled(host, before, what):
    """Wait until the kernel looks like before; deletions go on behind."""
    wait_for(lambda: not before.differences(host.kernel()), 3,
             lambda: what + ":\n  " + "\n  ".join(before.differences(host.kernel())), every=0.03)


def works(host, guests, lan):
    """Everything that populate made does what it should."""
    web, out, two = guests["web"], guests["out"], guests["two"]
    with servers.TcpServer(web, 80, name="web"), servers.UdpServer(web, 80, name="web"), servers.TcpServer(two, 80, name="two"):
        for protocol in ("tcp", "udp"):
            assert servers.greeting(lan, protocol, topology.HOST, 8080) == ("web", topology.LAN)
            assert servers.greeting(host, protocol, "127.0.0.1", 8080)[0] == "web"
            assert servers.greeting(host, protocol, "::1", 8080)[0] == "web"
        assert servers.tcp_greeting(lan, topology.HOST, 8081)[0] == "two"
        assert servers.tcp_greeting(out, web.ip_address, 80) == ("web", out.ip_address)
    for guest in (web, out, two):
        assert guest.ping(topology.INTERNET), guest.name
        assert dns.ask(guest, guest.gateway, "printer").data == ["192.168.77.44"]
    assert dns.ask(web, web.gateway, "out").data == [out.ip_address]
    assert not web.ping(out.ip_address, timeout=0.2)


# Restarts

@pytest.mark.parametrize("crash", [False, True], ids=["SIGTERM", "kill -9"])
def test_restart_changes_nothing(host, lan, crash):
    guests = populate(host)
    stored, kernel = intent(host), host.kernel()
    for _ in range(3):
        host.restart(crash=crash)
        assert intent(host) == stored
        settled(host, kernel, "a restart changed the host")
    works(host, guests, lan)


def test_stop_leaves_the_data_plane(host, lan, internet):
    guests = populate(host)
    kernel = host.kernel()
    host.stop()
    assert not os.path.exists(host.socket_path), "the socket stays although nobody listens"
    trace.check_same(kernel, host.kernel(), "SIGTERM changed the host")
    works(host, guests, lan)
    host.start()
    works(host, guests, lan)


@pytest.mark.parametrize("crash", [False, True], ids=["SIGTERM", "kill -9"])
def test_restart_loses_no_packet(host, lan, internet, crash, bridge_nf):
    web = host.attach_guest("web", "-p", "8080:80", "-p", "8080:80/udp")
    out = host.attach_guest("out", "--mode", "outbound")
    with servers.TcpServer(web, 80), servers.UdpServer(web, 80):
        flows = {"tcp to the outside": TcpFlow(web, topology.INTERNET, 7), "udp to the outside": UdpFlow(web, topology.INTERNET, 7),
                 "tcp of an outbound guest": TcpFlow(out, topology.INTERNET, 7), "udp of an outbound guest": UdpFlow(out, topology.INTERNET, 7),
                 "tcp to a published port": TcpFlow(lan, topology.HOST, 8080), "udp to a published port": UdpFlow(lan, topology.HOST, 8080),
                 "tcp through 127.0.0.1": TcpFlow(host, "127.0.0.1", 8080), "udp between guests": UdpFlow(out, web.ip_address, 80)}
        with Flows(flows):
            for _ in range(3):
                host.restart(crash=crash)


def test_relayed_connections_outlive_a_restart(host):
    web = host.attach_guest("web", "-p", "8080:80")
    with servers.TcpServer(web, 80), servers.connect(host, "::1", 8080) as sock:
        servers.read_line(sock)
        for _ in range(2):
            host.restart()
            sock.sendall(b"still here")
            assert dns.receive_exactly(sock, 10) == b"still here"
            assert servers.tcp_greeting(host, "::1", 8080)[0] == "tcp"


def test_names_are_answered_while_moatd_is_away(host):
    guests = populate(host)
    host.stop()
    web = guests["web"]
    assert dns.ask(web, web.gateway, "out").rcode == "NOERROR"
    assert dns.ask(web, web.gateway, "www.example.org").data == [topology.INTERNET]
    host.start()
    assert dns.ask(web, web.gateway, "out").rcode == "NOERROR"


@pytest.mark.parametrize("crash", [False, True], ids=["SIGTERM", "kill -9"])
def test_no_question_is_lost_by_a_restart(host, crash):
    web = host.attach_guest("web")
    stop, lost = threading.Event(), []

    def asking():
        while not stop.is_set():
            try:
                if dns.ask(web, web.gateway, "web", timeout=2).data != [web.ip_address]:
                    lost.append("a wrong answer")
            except OSError as error:
                lost.append(str(error))

    thread = threading.Thread(target=asking)
    thread.start()
    try:
        for _ in range(4):
            host.restart(crash=crash)
    finally:
        stop.set()
        thread.join()
    assert not lost, lost


# moat run and restarts

def test_a_running_command_outlives_restarts(host, lan):
    guest = host.run_guest("web", "-p", "8080:80", command=("sh", "-c", "read x; exit 9"), stdin=subprocess.PIPE)
    for crash in (False, True, True, False):
        host.restart(crash=crash)
        assert host.call("guest.get", name="web")["endpoints"] == guest.info["endpoints"]
        assert guest.ping(topology.INTERNET)
    with servers.TcpServer(guest, 80, name="web"):
        assert servers.tcp_greeting(lan, topology.HOST, 8080)[0] == "web"
    guest.job.write("\n")
    assert guest.job.finish().code == 9
    wait_for(lambda: host.guest_names() == [], 2, "the guest to be gone when its command has ended")


def test_a_killed_moat_is_noticed_after_a_restart(host):
    guest = host.run_guest("web", "-p", "8080:80")
    host.restart()
    guest.job.process.kill()
    wait_for(lambda: host.guest_names() == [], 2, "the guest to be gone")
    wait_for(lambda: not alive(guest.pid), 1, "its command to be gone")


def test_what_ended_while_moatd_was_away_is_cleaned_up(host):
    before = host.kernel()
    run = host.run_guest("run", "-p", "8080:80")
    killed = host.run_guest("killed", "-p", "8081:80", "--mode", "outbound")
    attached = host.attach_guest("attached", "-p", "8082:80/udp")
    stays = host.attach_guest("stays")
    host.stop()
    run.job.send(signal.SIGTERM)
    run.job.finish()
    killed.job.process.kill()
    killed.job.finish()
    attached.space.close()
    host.start()
    wait_for(lambda: host.guest_names() == ["stays"], 2, lambda: f"only one guest to be left: {host.guest_names()}")
    assert host.call("port.list") == []
    assert dns.ask(stays, stays.gateway, "run").rcode == "NXDOMAIN"
    host.moat("detach", "stays")
    settled(host, before, "what ended while moatd was away left something")


def test_names_of_what_ended_are_free(host):
    guest = host.run_guest("web", "-p", "8080:80")
    host.stop()
    guest.job.process.kill()
    guest.job.finish()
    host.start()
    host.run_guest("web", "-p", "8080:80")


def test_run_while_moatd_is_away(host):
    host.stop()
    outcome = host.moat("run", "--", "true", check=False)
    assert outcome.code == 125 and outcome.err.startswith("moat: ")
    host.start()


# Drift while away, and reboots

@pytest.mark.parametrize("damage", ["rules", "bridge", "address", "member", "sysctl", "everything"])
def test_damage_while_moatd_is_away_is_repaired_at_start(host, lan, damage):
    guests = populate(host)
    host.crash()
    if damage in ("rules", "everything"):
        host.run("nft", "flush", "ruleset", check=False)
        host.run("nft", "delete", "table", "inet", "moat", check=False)
    if damage in ("bridge", "everything"):
        host.ip("link", "del", "moat0")
    if damage == "address":
        host.ip("address", "flush", "dev", "moat0")
    if damage == "member":
        host.ip("link", "set", guests["web"].endpoint()["host_interface"], "nomaster")
    if damage in ("sysctl", "everything"):
        host.sysctl("ipv4/ip_forward", 0)
    host.start()
    works(host, guests, lan)


def test_half_made_things_are_removed_at_start(host):
    """Links with moat's mark that the store does not know are what a crash left."""
    before = host.kernel()
    host.crash()
    host.ip("link", "add", "mv999999", "type", "veth", "peer", "name", "mv999998")
    host.ip("link", "set", "mv999999", "alias", "moat:0123456789ab")
    host.ip("link", "add", "innocent", "type", "bridge")
    host.start()
    wait_for(lambda: "mv999999" not in host.links(), 2, "the half-made link to be removed")
    assert "innocent" in host.links(), "somebody else's link was removed"
    host.ip("link", "del", "innocent")
    settled(host, before, "the start left something")


def test_reboot_brings_the_networks_back(host, lan):
    populate(host)
    stored = intent(host)
    host.reboot()
    after = intent(host)
    strip = lambda networks: [{k: v for k, v in n.items() if k != "guests"} for n in networks]
    assert strip(after["networks"]) == strip(stored["networks"])
    assert after["guests"] == [] and after["ports"] == []
    assert [n for n in after["names"] if n["name"] == "printer"]
    guest = host.attach_guest("web", "-p", "8080:80")
    assert guest.ping(topology.INTERNET)
    with servers.TcpServer(guest, 80, name="web"):
        assert servers.tcp_greeting(lan, topology.HOST, 8080)[0] == "web"


def test_reboot_with_another_network_around(host):
    """The network that was there first stays as it is, and the collision is said."""
    host.call("network.create", name="blue", subnet="10.9.0.0/24")
    host.power_off()
    host.power_on()
    host.ip("address", "add", "10.9.0.77/24", "dev", "eth0")
    host.start()
    assert host.call("network.get", name="blue")["subnet"] == "10.9.0.0/24"
    outcome = host.moat("doctor", check=False)
    assert outcome.code == 1 and "blue" in outcome.out + outcome.err, str(outcome)
    host.ip("address", "del", "10.9.0.77/24", "dev", "eth0")


def test_sysctls_are_given_back_after_a_crash(host):
    assert host.sysctl("ipv4/ip_forward") == "1"
    host.restart(crash=True)
    host.moat("teardown", "--yes")
    assert host.sysctl("ipv4/ip_forward") == "0"


# One moatd per directories

@pytest.mark.parametrize("shared", ["both", "state", "run"])
def test_a_second_moatd_is_refused_naming_the_first(host, shared):
    other = host.temporary("other")
    state = host.state_dir if shared in ("both", "state") else f"{other}/state"
    run = host.run_dir if shared in ("both", "run") else f"{other}/run"
    before = host.kernel()
    second = host.second_daemon("--state-dir", state, "--run-dir", run)
    second.expected_end = True
    assert second.wait_end() not in (0, None)
    assert str(host.daemon.pid) in second.log(), f"does not name the first: {second.log()}"
    assert host.call("system.status")
    trace.check_same(before, host.kernel(), "a refused second moatd changed the host")


def test_lock_ends_with_its_holder(host):
    for _ in range(3):
        host.restart(crash=True)


def test_two_hosts_side_by_side(host, world, lan):
    other = Host(world, "other", "192.168.77.11", "2001:db8:77::11")
    try:
        before = other.trace()
        other.start()
        one = host.attach_guest("web", "-p", "8080:80")
        two = other.attach_guest("web", "-p", "8080:80")
        assert one.ip_address == two.ip_address
        with servers.TcpServer(one, 80, name="one"), servers.TcpServer(two, 80, name="two"):
            assert servers.tcp_greeting(lan, topology.HOST, 8080)[0] == "one"
            assert servers.tcp_greeting(lan, "192.168.77.11", 8080)[0] == "two"
            assert servers.tcp_greeting(one, "192.168.77.11", 8080)[0] == "two"
        other.end_processes()
        other.moat("teardown", "--yes")
        other.stop()
        assert one.ping(topology.INTERNET), "teardown of one host broke another"
        wait_for(lambda: not before.differences(other.trace()), 3, lambda: "\n".join(before.differences(other.trace())))
    finally:
        other.destroy()


# Failing steps

def operations(host):
    """Changes to be tried, each with what has to be there for it; (name, prepare, act)."""
    def attach(name, **more):
        space = host.guest_space(name)
        return lambda: host.call("guest.attach", name=name, kind="netns", pid=space.pid, networks=[{"name": "default"}], **more)

    ready = {}

    def have_guest():
        ready["info"] = attach("old", ports=["8000:80"])()

    return [
        ("network.create", lambda: None, lambda: host.call("network.create", name="blue", subnet="10.9.0.0/24")),
        ("guest.attach", lambda: ready.update(act=attach("box", ports=["8080:80", "8080:80/udp"])), lambda: ready["act"]()),
        ("guest.attach outbound", lambda: ready.update(act=attach("strict", mode="outbound")), lambda: ready["act"]()),
        ("guest.attach loopback", lambda: ready.update(act=attach_loopback(host)), lambda: ready["act"]()),
        ("port.add", have_guest, lambda: host.call("port.add", guest="old", ports=["8090:80", "8091-8095:81-85/udp"])),
        ("port.remove", lambda: None, lambda: host.call("port.remove", guest="old", ports=["8000:80"])),
        ("network.attach", lambda: host.call("network.create", name="green", subnet="10.9.2.0/24"),
         lambda: host.call("guest.attach", name="old", networks=[{"name": "green"}])),
        ("dns.add", lambda: None, lambda: host.call("dns.add", name="printer", ip="192.168.77.44")),
        ("guest.detach", lambda: None, lambda: host.call("guest.detach", name="old")),
        ("network.remove", lambda: None, lambda: host.call("network.remove", name="green", force=True)),
    ]


def attach_loopback(host):
    space = host.guest_space("inner")
    return lambda: host.call("guest.attach", name="inner", kind="netns", pid=space.pid, mode="loopback")


@pytest.mark.limit(120)
@every_point
def test_a_failing_step_is_undone(host, point):
    """At each step in turn, at its first, second, … execution: the change is refused and nothing of it remains."""
    hits = 0
    for count in range(1, 9):
        hits += fail_once(host, point, count)
    if hits == 0:
        pytest.skip(f"no change of this test comes by {point}")


def fail_once(host, point, count):
    """Start with a fault at the count-th pass of the point, and try changes until one meets it. 1 where one did."""
    reset(host)
    host.stop()
    process = host.start(env={"MOAT_FAULT": f"{point}:{count}"}, ready=False)
    try:
        process.wait_ready()
    except AssertionError:
        # The start itself met the fault: it may give up, and has to say why. The next one must do.
        process.expected_end = True
        assert "injected" in process.log(), process.log()
        process.close()
        host.drop_connections()
        host.start()
        assert [n["name"] for n in host.call("network.list")] == ["default"]
        return 0
    for name, prepare, act in operations(host):
        try:
            prepare()
        except rpc.RpcError as error:
            assert "injected" in error.message, f"{name}: {error}"
            return 1
        stored, kernel = intent(host), host.kernel()
        try:
            act()
        except rpc.RpcError as error:
            assert "injected" in error.message, f"{name} failed for another reason: {error}"
            assert intent(host) == stored, f"{name} was refused at {point}, and the store changed"
            settled(host, kernel, f"{name} was refused at {point}, and left something")
            act()
            return 1
    return 0


def reset(host):
    if not host.daemon.running():
        host.start()
    for guest in host.guest_names():
        host.call("guest.detach", name=guest)
    for network in host.call("network.list"):
        if network["name"] != "default":
            host.call("network.remove", name=network["name"], force=True)
    for name in {row["name"] for row in host.call("dns.list") if row.get("guest") is None}:
        host.call("dns.remove", name=name)
    host.end_processes()


@pytest.mark.limit(120)
@every_point
def test_a_crash_at_any_step_is_recovered(host, lan, point):
    """The daemon dies in the middle of a change; the next start has all of it or nothing, and works."""
    clean = host.kernel()
    for count in range(1, 5):
        reset(host)
        host.stop()
        process = host.start(env={"MOAT_CRASH": f"{point}:{count}"}, ready=False)
        process.expected_end = True
        try:
            process.wait_ready()
            for _, prepare, act in operations(host):
                prepare()
                act()
        except (AssertionError, rpc.Closed, rpc.RpcError, OSError) as error:
            if process.running():
                wait_for(lambda: not process.running(), 1, f"the crash at {point}; instead: {error}")
        host.drop_connections()
        if process.running():
            process.expected_end = False
        else:
            assert process.process.returncode == 86, process.log()[-3000:]
            process.close()
            host.start()
        recovered(host, lan)
    reset(host)
    settled(host, clean, f"crashes at {point} left something")


def recovered(host, lan):
    """After a recovery: what the store has is whole, what it has not is nowhere."""
    stored = intent(host)
    links = host.links()
    for network in stored["networks"]:
        assert network["bridge"] in links
    known = {network["bridge"] for network in stored["networks"]}
    for guest in stored["guests"]:
        for endpoint in guest["endpoints"]:
            assert endpoint["host_interface"] in links, f"{guest['name']} has no link"
            known.add(endpoint["host_interface"])
    wait_for(lambda: {name for name, link in host.links().items() if str(link.get("ifalias", "")).startswith("moat:")} <= known,
             2, lambda: f"links that nobody knows to be gone: {set(host.links()) - known}")
    spaces = {space.pid: space for space in host._guest_spaces}
    for guest in stored["guests"]:
        space = spaces.get(guest["pid"])
        if space and guest["mode"] in ("full", "outbound"):
            assert space.ping(topology.INTERNET), f"{guest['name']} has no way out"
            for port in guest["ports"]:
                if port["protocol"] == "tcp":
                    with servers.TcpServer(space, port["guest_port"], name=guest["name"]):
                        assert servers.tcp_greeting(lan, topology.HOST, port["host_port"])[0] == guest["name"]
    # And it goes on.
    guest = host.attach_guest("after", "-p", "7777:80")
    assert guest.ping(topology.INTERNET)
    host.call("guest.detach", name="after")
    guest.space.close()


# The disk

def test_full_disk_refuses_changes_and_harms_nothing(machine, internet):
    os.makedirs(machine.state_dir, exist_ok=True)
    machine.run("mount", "-t", "tmpfs", "-o", "size=2m", "state", machine.state_dir)
    filler = machine.path(os.path.join(machine.state_dir, "filler"))
    try:
        machine.start()
        guest = machine.attach_guest("box")
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        kernel = machine.kernel()
        refused = None
        for i in range(2000):
            try:
                machine.call("dns.add", name=f"n{i}", ip="192.0.2.1")
            except rpc.RpcError as error:
                refused = error
                break
        assert refused is not None, "a full disk was not noticed"
        error = machine.error("network.create", name="blue")
        assert error.code in (-32603, -32000)
        settled(machine, kernel, "a change that could not be written was carried out")
        assert guest.ping(topology.INTERNET)
        os.unlink(filler)
        machine.call("network.create", name="blue")
        machine.end_processes()
        machine.moat("teardown", "--yes")
        machine.stop()
    finally:
        if machine.daemon and machine.daemon.running():
            machine.daemon.kill()
        machine.run("umount", "-l", machine.state_dir, check=False)
        os.rmdir(machine.state_dir)


def test_database_of_a_newer_moat_is_refused(host):
    host.stop()
    with sqlite3.connect(os.path.join(host.state_dir, "moat.db")) as database:
        version, = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version = 9999")
    database.close()
    process = host.second_daemon()
    process.expected_end = True
    assert process.wait_end() != 0
    assert re.search(r"newer|version", process.log()), process.log()
    with sqlite3.connect(os.path.join(host.state_dir, "moat.db")) as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    host.start()


def test_database_that_is_none_is_refused(machine, internet):
    os.makedirs(machine.state_dir)
    path = os.path.join(machine.state_dir, "moat.db")
    with open(path, "wb") as file:
        file.write(b"this is not a database" * 500)
    process = machine.second_daemon()
    process.expected_end = True
    assert process.wait_end() != 0
    assert "moat.db" in process.log()
    with open(path, "rb") as file:
        assert file.read().startswith(b"this is not"), "somebody's file was overwritten"
    os.unlink(path)
    for name in os.listdir(machine.state_dir):
        os.unlink(os.path.join(machine.state_dir, name))
    os.rmdir(machine.state_dir)
    if os.path.isdir(machine.run_dir):
        for name in os.listdir(machine.run_dir):
            os.unlink(os.path.join(machine.run_dir, name))
        os.rmdir(machine.run_dir)


def test_database_is_for_root_only(host):
    info = os.stat(os.path.join(host.state_dir, "moat.db"))
    assert info.st_mode & 0o077 == 0


def test_start_is_quick(host):
    populate(host)
    with Stopwatch() as watch:
        host.restart()
    assert watch.ms < 3000


def test_stop_is_quick(host):
    populate(host)
    with Stopwatch() as watch:
        host.stop()
    assert watch.ms < 2000
    host.start()
