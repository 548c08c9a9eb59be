# SPDX-License-Identifier: GPL-2.0-or-later
"""Each step of each change fails, or the daemon dies there: nothing half-made remains, and it goes on."""

import subprocess

import pytest

import daemon
import rpc
import servers
import topology
from host import intent, settled
from wait import wait_for


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
        ("policy.set", lambda: None, lambda: host.call("policy.set", guest="old", allow=[f"{topology.INTERNET}/32", "www.example.org:80"])),
        ("policy.set again", lambda: None, lambda: host.call("policy.set", guest="old", deny=["example.net"])),
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
    hits = [fail_once(host, point, 1)]
    while hits[-1] is not None and len(hits) < 12:
        hits.append(fail_once(host, point, len(hits) + 1))
    if "refused" not in hits:
        pytest.skip(f"no change of this test comes by {point}")


def fail_once(host, point, count):
    """Start with a fault at the count-th pass of the point, and try changes until one meets it.

    "refused" where one did, "start" where the start itself did, None where there are not so many passes.
    """
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
        return "start"
    for name, prepare, act in operations(host):
        try:
            prepare()
        except rpc.RpcError as error:
            assert "injected" in error.message, f"{name}: {error}"
            return "refused"
        stored, kernel = intent(host), host.kernel()
        try:
            act()
        except rpc.RpcError as error:
            assert "injected" in error.message, f"{name} failed for another reason: {error}"
            assert intent(host) == stored, f"{name} was refused at {point}, and the store changed"
            settled(host, kernel, f"{name} was refused at {point}, and left something")
            act()
            return "refused"
    return "start" if "injected" in process.log() else None


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
    crashed, count = True, 0
    while crashed and count < 8:
        count += 1
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
        crashed = not process.running()
        if not crashed:
            process.expected_end = False
            host.restart()
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
            # A policy that is written is in force.
            closed = guest["policy"]["allow"] != []
            assert space.ping(topology.LAN, timeout=0.5 if closed else 5) != closed, f"{guest['name']}: {guest['policy']}"
            for port in guest["ports"]:
                if port["protocol"] == "tcp":
                    with servers.TcpServer(space, port["guest_port"], name=guest["name"]):
                        assert servers.tcp_greeting(lan, topology.HOST, port["host_port"])[0] == guest["name"]
    # And it goes on.
    guest = host.attach_guest("after", "-p", "7777:80")
    assert guest.ping(topology.INTERNET)
    host.call("guest.detach", name="after")
    guest.space.close()
