# SPDX-License-Identifier: GPL-2.0-or-later
"""Crash, restart, reboot, failing steps: the kernel is always what the store says, and traffic never notices."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading

import pytest

import dns
import rpc
import servers
import topology
import trace
from flows import Flows, TcpFlow, UdpFlow
from host import Host, intent, settled
from netns import alive
from wait import PATIENCE, Stopwatch, wait_for


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


def test_attach_after_a_restart_with_many_guests(host):
    """What a start counts from its beginning must not meet what the former one made."""
    guests = [host.attach_guest(f"g{i}") for i in range(12)]
    host.restart()
    for i in range(12, 24):
        guests.append(host.attach_guest(f"g{i}"))
    assert len({guest.ip_address for guest in guests}) == 24
    assert all(guest.ping(topology.INTERNET) for guest in guests)


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


def test_a_restart_at_the_moment_a_command_starts(host, tmp_path):
    """From the answer to guest.attach on, `moat run` needs nothing more of moatd. Between them stands somebody who
    restarts moatd before he hands that answer on."""
    path = str(tmp_path / "between.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)
    listener.settimeout(20 * PATIENCE)

    def hand_on(client):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(host.socket_path)
        with client, server, client.makefile("rb") as questions, server.makefile("rb") as answers:
            for question in questions:
                server.sendall(question)
                answer = next(line for line in answers if b'"id"' in line)  # events may come first
                attached = b'"guest.attach"' in question
                if attached:
                    host.restart()
                client.sendall(answer)
                if attached:
                    return

    job = host.spawn("--socket", path, "run", "-n", "web", "--", "sh", "-c", "cat /etc/resolv.conf; exit 9")
    with listener:
        for _ in range(2):  # up to the restart, and what moat run says at its end
            hand_on(listener.accept()[0])
    outcome = job.finish()
    assert outcome.code == 9 and "nameserver 10.88.0.1\n" in outcome.out, outcome
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
    killed = host.run_guest("killed", "--mode", "outbound")
    attached = host.attach_guest("attached", "-p", "8082:80/udp")
    stays = host.attach_guest("stays")
    host.stop()
    run.job.send(signal.SIGTERM)
    run.job.finish()
    killed.job.process.kill()
    killed.job.finish()
    attached.space.close()
    host.start()
    wait_for(lambda: host.guest_names() == ["stays"], 10, lambda: f"only one guest to be left: {host.guest_names()}")
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
    assert os.listdir(other) == []


def files_below(path):
    return sorted(os.path.join(folder, name) for folder, folders, files in os.walk(path) for name in folders + files)


@pytest.mark.parametrize("why", ["namespace", "configuration", "run directory", "socket", "reconcile"])
def test_a_refused_start_leaves_nothing(host, why, tmp_path):
    """Neither its directories, nor those above them, nor anything in them."""
    state, run, config = str(tmp_path / "a/b/state"), str(tmp_path / "a/run"), str(tmp_path / "moat.conf")
    arguments = ["--state-dir", state, "--run-dir", run]
    if why == "configuration":
        with open(config, "w", encoding="ascii") as file:
            file.write("[daemon]\nnonsense = 1\n")
        arguments += ["--config", config]
    elif why == "run directory":
        open(tmp_path / "file", "w", encoding="ascii").close()
        arguments[3] = str(tmp_path / "file")
    elif why == "socket":
        os.makedirs(os.path.join(run, "moat.sock", "in the way"))
    if why not in ("namespace", "configuration"):
        host.moat("teardown", "--yes")
        host.daemon.wait_end()
    before, kernel = files_below(tmp_path), host.kernel()
    second = host.second_daemon(*arguments, env={"MOAT_FAULT": "nat.rebuild"} if why == "reconcile" else None)
    second.expected_end = True
    assert second.wait_end() not in (0, None), second.log()
    assert files_below(tmp_path) == before, second.log()
    trace.check_same(kernel, host.kernel(), "a refused moatd changed the host")


def test_directories_above_are_given_back(machine, internet):
    """What moatd made of the path to its directories is part of what teardown removes."""
    top = machine.temporary("deep")
    machine.state_dir, machine.run_dir = f"{top}/a/b/state", f"{top}/a/run"
    machine.socket_path = f"{machine.run_dir}/moat.sock"
    machine.start()
    machine.restart()
    machine.moat("teardown", "--yes")
    machine.daemon.wait_end()
    assert os.listdir(top) == []


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


def repairs(watcher, marker, host):
    """What was repaired until a record of this name is added."""
    host.moat("dns", "add", marker, "192.0.2.9")
    seen = []
    while True:
        event = watcher.next_event()
        if event["type"] == "dns.added":
            return seen
        if event["type"] == "repaired":
            seen.append((event["network"], event["guest"], event["detail"]))


@pytest.mark.parametrize("damage, network, guest, detail", [
    (("link", "del", "moat0"), "default", None, "moat0"),
    (("address", "flush", "dev", "moat0"), "default", None, "moat0"),
    (("link", "set", "moat0", "down"), "default", None, "moat0"),
    (("link", "del", "PORT"), "default", "box", "mv"),
])
def test_a_repair_is_told(host, damage, network, guest, detail):
    box = host.attach_guest("box")
    watcher = host.rpc().subscribe()
    port = box.info["endpoints"][0]["host_interface"]
    host.ip(*[port if word == "PORT" else word for word in damage])
    event = watcher.event_where(lambda event: event["type"] == "repaired" and detail in event["detail"])
    assert (event["network"], event["guest"]) == (network, guest)
    wait_for(lambda: box.ping(box.gateway), 3, "the guest to reach its gateway again")


def test_our_own_work_is_no_repair(host):
    watcher = host.rpc().subscribe()
    host.moat("net", "create", "side", "--ipv6")
    for i in range(5):
        host.attach_guest(f"box{i}", "-p", f"808{i}:80")
        host.moat("attach", f"box{i}", "--network", "side")
    host.moat("policy", "set", "box1", "--deny", "@private")
    host.moat("port", "rm", "box2", "8082:80")
    host.moat("policy", "set", "box2", "--mode", "outbound")
    host.moat("policy", "set", "box1")
    host.moat("limit", "set", "box3", "--rate-up", "10mbit")
    host.moat("localhost", "box3", "on")
    for i in range(5):
        host.moat("detach", f"box{i}", "--network", "side")
        host.moat("detach", f"box{i}")
    host.moat("net", "rm", "side")
    assert repairs(watcher, "marker", host) == []
