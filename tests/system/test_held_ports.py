# SPDX-License-Identifier: GPL-2.0-or-later
"""Another program holds a published port when moatd starts: it keeps it, and moat takes it over once it is free."""

import contextlib
import os
import re

import pytest

import servers
import topology
from netns import alive, kill
from servers import greeting
from wait import stays, wait_for

protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
PROGRAM = rf"taken by python3 \(pid {os.getpid()}\)"


def go_away(host):
    """moatd and what keeps its ports for it end, as in a crash of everything but the guests."""
    relay = host.call("system.status")["relay_pid"]
    host.crash()
    kill(relay)
    wait_for(lambda: not alive(relay), 3, "the relay's end")


@contextlib.contextmanager
def held(host, protocol, port, address="0.0.0.0"):
    """A program of the host has the port."""
    with (servers.TcpServer if protocol == "tcp" else servers.UdpServer)(host, port, address, name="program") as server:
        yield server


@contextlib.contextmanager
def a_guest(host, *ports):
    guest = host.attach_guest("web", *[word for port in ports for word in ("-p", port)])
    with servers.TcpServer(guest, 80, name="guest"), servers.UdpServer(guest, 80, name="guest"):
        yield guest


def waiting(host):
    return {port["host_port"]: port.get("waiting") for port in host.call("guest.get", name="web")["ports"]}


def check(host):
    return [c for c in host.call("system.doctor") if c["name"] == "ports"][0]


@protocols
def test_the_program_keeps_it_until_it_ends(host, lan, protocol):
    with a_guest(host, f"8080:80/{protocol}", f"8081:80/{protocol}"):
        assert check(host)["ok"]
        go_away(host)
        with held(host, protocol, 8080) as server:
            host.start()
            assert greeting(lan, protocol, topology.HOST, 8080) == ("program", topology.LAN)
            assert greeting(host, protocol, "127.0.0.1", 8080)[0] == "program"
            assert greeting(lan, protocol, topology.HOST, 8081) == ("guest", topology.LAN)
            assert re.search(PROGRAM, waiting(host)[8080]) and waiting(host)[8081] is None
            assert waiting(host) == {port["host_port"]: port.get("waiting") for port in host.call("port.list")}
            rows = host.moat("port", "ls").out.splitlines()
            assert [bool(re.search(PROGRAM, row)) for row in rows if "808" in row] == [True, False]
            assert "taken by python3" in host.moat("inspect", "web").out
            assert not check(host)["ok"] and re.search(PROGRAM, check(host)["detail"]) and check(host)["remedy"]
            assert re.search("web: .*8080.* is not served: .*" + PROGRAM, host.daemon.log())
            events = host.rpc().subscribe()
            server.close()
            event = events.event_where(lambda e: e["type"] == "port.served", 15)
            assert event["guest"] == "web" and "8080" in event["detail"]
        assert greeting(lan, protocol, topology.HOST, 8080) == ("guest", topology.LAN)
        assert greeting(host, protocol, "::1", 8080)[0] == "guest"
        assert waiting(host) == {8080: None, 8081: None} and check(host)["ok"]


def test_what_flowed_to_the_program_flows_to_the_guest_then(host, lan):
    """A client of UDP that keeps its port and never waits."""
    with a_guest(host, "8080:80/udp"), lan.socket(servers.socket.AF_INET, servers.socket.SOCK_DGRAM) as client:
        client.connect((topology.HOST, 8080))
        client.settimeout(0.3)

        def who():
            with contextlib.suppress(OSError):
                client.send(b"x")
                return client.recv(100).split()[0].decode()
            return None

        go_away(host)
        with held(host, "udp", 8080):
            host.start()
            assert who() == "program"
        wait_for(lambda: who() == "guest", 15, "the guest's answer")


def test_on_one_address_only(host, lan):
    """What is published on every address waits for all of them."""
    with a_guest(host, "8080:80"):
        go_away(host)
        with held(host, "tcp", 8080, "127.0.0.1"):
            host.start()
            assert greeting(host, "tcp", "127.0.0.1", 8080)[0] == "program"
            assert servers.unreachable(lan, "tcp", topology.HOST, 8080)
        wait_for(lambda: not servers.unreachable(lan, "tcp", topology.HOST, 8080), 15, "the port")


def test_a_range_waits_as_a_whole(host, lan):
    with a_guest(host, "8080-8083:80-83"):
        go_away(host)
        with held(host, "tcp", 8082):
            host.start()
            assert re.search("8082.*" + PROGRAM, waiting(host)[8080])
            assert servers.unreachable(lan, "tcp", topology.HOST, 8080)
        wait_for(lambda: waiting(host) == {8080: None}, 15, "the range")
        assert greeting(lan, "tcp", topology.HOST, 8080) == ("guest", topology.LAN)


def test_a_repair_does_not_take_it(machine, internet, lan):
    machine.start(env={"MOAT_FAULT": "nat.owner"})
    with a_guest(machine, "8080:80", "8081:80"):
        go_away(machine)
        with held(machine, "tcp", 8080):
            machine.start(env={"MOAT_FAULT": "nat.owner"})
            machine.run("nft", "flush", "ruleset")
            wait_for(lambda: not servers.unreachable(lan, "tcp", topology.HOST, 8081), 5, "the table")
            assert greeting(lan, "tcp", topology.HOST, 8080) == ("program", topology.LAN)
            assert [machine.call("policy.test", guest="web", destination=f"{topology.HOST}:{port}")["allowed"]
                    for port in (8080, 8081)] == [False, True]


@pytest.mark.parametrize("how", ["port.remove", "guest.detach", "network.remove"])
def test_nobody_takes_what_is_published_no_more(host, lan, how):
    """It is taken back, or its guest goes, while it waits: nothing is left of it, and nothing to repair."""
    host.call("network.create", name="blue")
    guest = host.attach_guest("web", "-p", "8080:80", network="blue")
    with servers.TcpServer(guest, 80, name="guest"):
        go_away(host)
        with held(host, "tcp", 8080):
            host.start()
            assert check(host)["ok"] is False
            if how == "port.remove":
                host.moat("port", "rm", "web", "8080:80")
            elif how == "guest.detach":
                guest.end()
            else:
                host.moat("net", "rm", "blue", "--force")
            assert check(host)["ok"]
            assert "repair" not in host.daemon.log()
        stays(lambda: servers.unreachable(host, "tcp", "127.0.0.1", 8080, 0.2), 2.5, "the free port", every=0.2)
        with held(host, "tcp", 8080):
            pass  # it can be bound


def test_it_follows_the_guest(host, lan):
    """Another network becomes the one that ports lead to, while the port waits."""
    host.call("network.create", name="blue")
    guest = host.attach_guest("web", "-p", "8080:80", "-p", "8081:80")
    host.moat("attach", "web", "--network", "blue")
    with servers.TcpServer(guest, 80, name="guest"):
        go_away(host)
        with held(host, "tcp", 8080):
            host.start()
            host.moat("detach", "web", "--network", "default")
            assert greeting(lan, "tcp", topology.HOST, 8081)[0] == "guest"
            assert "repair" not in host.daemon.log()
        wait_for(lambda: waiting(host) == {8080: None, 8081: None}, 15, "the port")
        assert greeting(lan, "tcp", topology.HOST, 8080) == ("guest", topology.LAN)


def test_the_guest_is_kept_as_ever(host):
    """An ephemeral one goes with its command, although its port waits."""
    guest = host.run_guest("web", "-p", "8080:80")
    go_away(host)
    with held(host, "tcp", 8080):
        host.start()
        wait_for(lambda: not check(host)["ok"], 3, "the doctor's word")
        guest.end()
        assert check(host)["ok"]


def test_another_restart_finds_it_free(host, lan):
    with a_guest(host, "8080:80"):
        go_away(host)
        with held(host, "tcp", 8080):
            host.start()
            assert waiting(host)[8080]
            host.stop()
        host.start()
        assert waiting(host) == {8080: None}
        assert greeting(lan, "tcp", topology.HOST, 8080) == ("guest", topology.LAN)
