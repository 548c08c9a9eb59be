# SPDX-License-Identifier: GPL-2.0-or-later
"""Detaches in the middle of long requests of others (decision 0018)."""

import contextlib
import json
import select
import socket
import threading

import pytest

import rpc
from wait import wait_for

LONG = "20000-29999:20000-29999"
MANY = 24


def attach(connection, name, space=None, **params):
    """A guest on a tap, which lives on the disk, or in a namespace, which does not."""
    kind = {"kind": "netns", "pid": space.pid} if space else {"kind": "tap", "tap": {}}
    return connection.call("guest.attach", name=name, networks=[{"name": "default"}], **kind, **params)


@contextlib.contextmanager
def asked(host, method, **params):
    """A request that somebody else is waiting for: what comes back is given by .receive()."""
    with rpc.Rpc(host.socket_path) as other:
        other.send(other.request(method, **params))
        yield other


def is_listening(host, port):
    try:
        host.inside(socket.create_connection, ("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def is_answered(connection):
    return bool(connection._buffer) or bool(select.select([connection.socket], [], [], 0)[0])


def result(connection):
    answer = connection.receive()
    assert "result" in answer, answer
    return answer["result"]


def detach_while(host, connection, names, method, **params):
    """Of the detaches, one after the other, how many were answered before the request that was sent before them?"""
    before = 0
    with asked(host, method, **params) as other:
        for name in names:
            connection.call("guest.detach", name=name)
            before += not is_answered(other)
        return before, result(other)


def faults(host):
    return [check for check in host.call("system.doctor") if not check["ok"]]


@pytest.fixture
def crowd(host):
    """Guests that may go, of both kinds, and one with a web server's ports that stays."""
    with rpc.Rpc(host.socket_path) as connection:
        spaces = [host.guest_space() for _ in range(4)]
        names = [f"t{i}" for i in range(MANY - len(spaces))] + [f"n{i}" for i in range(len(spaces))]

        def fill():
            for name in names:
                attach(connection, name, space=spaces[int(name[1:])] if name[0] == "n" else None,
                       ports=[f"{10000 + names.index(name)}:80"] if names.index(name) % 3 == 0 else [])
            return names

        host.attach_guest("stays")
        yield connection, fill


def test_detaches_go_in_the_middle_of_a_long_range(host, crowd):
    connection, fill = crowd
    before, ports = detach_while(host, connection, fill(), "port.add", guest="stays", ports=[LONG])
    assert before > MANY // 4, f"{before} of {MANY} detaches were answered before 10,000 ports"
    assert ports[0]["host_port"] == 20000 and ports[0]["count"] == 10000
    assert host.guest_names() == ["stays"]
    assert not faults(host)
    before, _ = detach_while(host, connection, fill(), "port.remove", guest="stays", ports=[LONG])
    assert before > MANY // 4, f"{before} of {MANY} detaches were answered before 10,000 ports were free"
    assert host.call("port.list") == []


@pytest.mark.parametrize("method", ["guest.list", "system.doctor"])
def test_detaches_do_not_disturb_who_looks(host, crowd, method):
    """Whoever lists guests, or looks for faults, while others come and go sees those that stay, whole, and no faults."""
    connection, fill = crowd
    stop = threading.Event()
    wrong = []

    def look():
        with rpc.Rpc(host.socket_path) as other:
            while not stop.is_set():
                found = other.call(method)
                if method == "system.doctor":
                    wrong.extend(check for check in found if not check["ok"])
                    continue
                names = [guest["name"] for guest in found]
                if "stays" not in names or len(set(names)) != len(names):
                    wrong.append(names)
                wrong.extend(guest for guest in found if len(guest["endpoints"]) != 1 or not guest["endpoints"][0]["ip"])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(4):
            for name in fill():
                connection.call("guest.detach", name=name)
    finally:
        stop.set()
        thread.join()
    assert not wrong, json.dumps(wrong[0])


def test_the_guest_that_is_worked_on_waits(host, crowd):
    """Ports come and go with their guest, in whatever order the two are asked for."""
    connection, _ = crowd
    for request in ({"method": "port.add", "ports": [LONG]},
                    {"method": "policy.set", "mode": "full", "allow": [f"198.51.100.{i}:443/tcp" for i in range(200)]}):
        attach(connection, "goes")
        with asked(host, guest="goes", **request) as other:
            connection.call("guest.detach", name="goes")
            answer = other.receive()
        assert "result" in answer or answer["error"]["data"]["reason"] == "not_found", answer
        assert host.guest_names() == ["stays"] and host.call("port.list") == []
        assert not faults(host)
        host.inside(socket.create_server, ("", 20000)).close()  # free again


def test_other_requests_wait_and_keep_their_order(host, crowd):
    """A line with a detach and what is no detach, in the middle: its answers come in order, and of what is then."""
    connection, fill = crowd
    names = fill()
    with asked(host, "port.add", guest="stays", ports=[LONG]) as long_one:
        wait_for(lambda: is_listening(host, 20000), 5)
        batch = [connection.request("guest.detach", name=names[0]), connection.request("port.list", guest="stays"),
                 connection.request("guest.detach", name=names[1]), connection.request("guest.list")]
        connection.send(batch)
        connection.send(connection.request("guest.detach", name=names[2]))
        answers = connection.receive()
        assert result(long_one)[0]["count"] == 10000
    assert [answer["id"] for answer in answers] == [request["id"] for request in batch]
    assert [port["count"] for port in answers[1]["result"]] == [10000]
    assert sorted(guest["name"] for guest in answers[3]["result"]) == sorted(["stays", *names[2:]])
    assert result(connection) == {}
    assert names[2] not in host.guest_names()


def test_connections_come_and_end_in_the_middle(host, crowd):
    """Whoever connects is served; whoever goes takes his guests with him, after the request."""
    connection, fill = crowd
    names = fill()
    owners = [rpc.Rpc(host.socket_path) for _ in range(3)]
    for i, owner in enumerate(owners):
        attach(owner, f"owned{i}", space=host.guest_space(), ephemeral=True)
    with asked(host, "port.add", guest="stays", ports=[LONG]) as long_one:
        for i, owner in enumerate(owners):
            with rpc.Rpc(host.socket_path) as fresh:
                fresh.call("guest.detach", name=names[i])
            owner.close()
        with rpc.Rpc(host.socket_path) as hasty:
            hasty.send(hasty.request("guest.detach", name=names[3]))  # does not wait for the answer
        assert result(long_one)[0]["count"] == 10000
    wait_for(lambda: set(host.guest_names()) == {"stays", *names[4:]}, 5, lambda: str(host.guest_names()))


def test_many_come_at_once(host, crowd):
    """Forty connections that are made, and forty detaches, in the middle of one request."""
    connection, fill = crowd
    names = fill()
    extra = [f"x{i}" for i in range(40 - len(names))]
    for name in extra:
        attach(connection, name)
    with asked(host, "port.add", guest="stays", ports=[LONG]) as long_one, contextlib.ExitStack() as stack:
        wait_for(lambda: is_listening(host, 20000), 5)
        callers = [stack.enter_context(rpc.Rpc(host.socket_path)) for _ in range(40)]
        for caller, name in zip(callers, names + extra):
            caller.send(caller.request("guest.detach", name=name))
        for caller in callers:
            assert result(caller) == {}
        early = not is_answered(long_one)
        assert result(long_one)[0]["count"] == 10000
    assert host.guest_names() == ["stays"]
    assert early, "40 detaches at once waited for 10,000 ports"


def test_a_detach_that_nobody_waits_for_is_done_all_the_same(host, crowd):
    connection, _ = crowd
    attach(connection, "goes")
    with asked(host, "port.add", guest="goes", ports=[LONG]) as long_one:
        wait_for(lambda: is_listening(host, 20000), 5)
        with rpc.Rpc(host.socket_path) as hasty:
            hasty.send(hasty.request("guest.detach", name="goes"))
        assert result(long_one)[0]["count"] == 10000
    wait_for(lambda: host.guest_names() == ["stays"], 5, lambda: str(host.guest_names()))


def test_detaches_go_in_the_middle_of_an_attach_with_a_long_range(host, crowd):
    connection, fill = crowd
    before, guest = detach_while(host, connection, fill(), "guest.attach", name="long", kind="tap", tap={},
                                 networks=[{"name": "default"}], ports=[LONG])
    assert before > MANY // 4, f"{before} of {MANY} detaches were answered before 10,000 ports"
    assert guest["ports"][0]["count"] == 10000
    assert not faults(host)
    error = host.error("guest.attach", name="other", kind="tap", tap={}, networks=[{"name": "default"}],
                       ports=["30000-30999:80-1079", "29999:80"])
    assert error.reason == "port_in_use" and host.guest_names() == ["stays", "long"]
    host.call("guest.detach", name="long")
    host.inside(socket.create_server, ("", 29999)).close()
    host.inside(socket.create_server, ("", 30000)).close()


def test_a_network_is_removed_by_force_while_its_guests_go(host, crowd):
    """Whoever is gone when his turn comes is no reason to stop; those on other networks stay on these."""
    connection, _ = crowd
    for _ in range(3):
        host.call("network.create", name="forced")
        both = [{"name": "default"}, {"name": "forced"}]
        for i in range(MANY):
            connection.call("guest.attach", name=f"f{i}", kind="tap", tap={}, networks=both if i % 4 == 0 else both[1:],
                            ports=[f"{10000 + i}:80"], policy={"allow": [f"198.51.100.{i}:443/tcp"]})
        with asked(host, "network.remove", name="forced", force=True) as other:
            for i in reversed(range(1, MANY, 2)):
                with contextlib.suppress(rpc.RpcError):  # it may have gone with the network
                    connection.call("guest.detach", name=f"f{i}")
            assert result(other) == {}
        assert sorted(host.guest_names()) == sorted(["stays", *(f"f{i}" for i in range(0, MANY, 4))])
        assert [network["name"] for network in host.call("network.list")] == ["default"]
        assert not faults(host)
        for i in range(0, MANY, 4):
            connection.call("guest.detach", name=f"f{i}")


def test_a_guest_with_a_range_goes_in_the_middle(host, crowd):
    """Its ports are closed by another thread, of which is heard in the middle too."""
    connection, _ = crowd
    for i in range(3):
        attach(connection, f"r{i}", ports=[f"{30000 + 400 * i}-{30399 + 400 * i}:1000-1399"])
    before, _ = detach_while(host, connection, [f"r{i}" for i in range(3)], "port.add", guest="stays", ports=[LONG])
    assert before > 0, "detaches of guests with 400 ports waited for 10,000 others"
    for port in (30000, 30800, 31199):
        host.inside(socket.create_server, ("", port)).close()


def test_who_gave_a_long_range_back_and_moatd_end_at_once(host, crowd):
    """The answer is due when the ports are closed; nobody is there for it, and moatd ends meanwhile."""
    connection, _ = crowd
    for _ in range(3):
        attach(connection, "long", ports=[LONG])
        with rpc.Rpc(host.socket_path) as hasty:
            hasty.send(hasty.request("guest.detach", name="long"))
        wait_for(lambda: "long" not in host.guest_names(), 5)
        host.restart()
        connection = host.rpc()
        assert host.guest_names() == ["stays"]
        host.inside(socket.create_server, ("", 20000)).close()


def test_networks_come_and_go_beside_detaches(host, crowd):
    connection, fill = crowd
    before = host.kernel()
    for i in range(4):
        _, network = detach_while(host, connection, fill(), "network.create", name="between", ipv6=i % 2 == 1)
        assert network["bridge"] in host.links()
        detach_while(host, connection, fill(), "network.remove", name="between")
        assert network["bridge"] not in host.links()
    assert not faults(host)
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))


def test_the_end_of_moatd_in_the_middle(host, crowd):
    """SIGTERM while a long request is answered and detaches come: what was answered holds after the next start."""
    connection, fill = crowd
    names = fill()
    with asked(host, "port.add", guest="stays", ports=[LONG]) as other:
        for name in names[:4]:
            connection.call("guest.detach", name=name)
        host.restart()
        with contextlib.suppress(rpc.Closed):
            other.receive()
    assert not set(names[:4]) & set(host.guest_names())
    assert len(host.guest_names()) == 1 + len(names) - 4
    assert not faults(host)
