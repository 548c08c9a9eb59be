# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd-resolved (259 and later) asks moat through its hook; a script plays it, as io.systemd.Resolve.Hook says."""

import base64
import os
import struct

import pytest

import dns
import varlink
from wait import wait_for

DIRECTORY = "/run/systemd/resolve.hook"
SOCKET = f"{DIRECTORY}/io.moat"
HOOK = "io.systemd.Resolve.Hook."


@pytest.fixture
def clients():
    opened = []
    yield opened
    for client in opened:
        client.close()


@pytest.fixture
def directory(machine):
    """What systemd makes."""
    machine.run("mkdir", "-p", DIRECTORY)
    yield DIRECTORY
    machine.run("rm", "-rf", "/run/systemd")


@pytest.fixture
def resolved(machine, directory, clients):
    """A connection, as systemd-resolved keeps one."""
    machine.start()
    return connect(machine, clients)


def is_there(machine):
    return os.path.exists(machine.path(SOCKET))


def connect(machine, clients):
    wait_for(lambda: is_there(machine), 10, "the socket")
    clients.append(varlink.Client(machine, SOCKET))
    return clients[-1]


def resolve(client, *keys):
    """rcode and records, in the order of the names; or the bare parameters."""
    question = [{"key": {"class": 1, "type": dns.TYPES.get(kind, kind), "name": name}} for name, kind in keys]
    reply = client.call(HOOK + "ResolveRecord", question=question)
    assert set(reply) == {"parameters"}, reply
    parameters = reply["parameters"]
    if "rcode" not in parameters:
        return parameters
    assert set(parameters) <= {"rcode", "answer"}, parameters
    return parameters["rcode"], sorted(record(answer["raw"]) for answer in parameters.get("answer", []))


def record(raw):
    data = base64.b64decode(raw, validate=True)
    name, at = dns.decode_name(data, 0)
    kind, klass, ttl, length = struct.unpack_from("!HHIH", data, at)
    rdata = data[at + 10:]
    assert klass == 1 and ttl <= 60 and length == len(rdata), data
    if kind in (1, 28):
        rdata = ".".join(map(str, rdata)) if kind == 1 else rdata.hex(":", 2)
    elif kind in (5, 12):
        rdata, end = dns.decode_name(data, at + 10)
        assert end == len(data), "not all of the record is its name"
    return name, dns.TYPE_NAMES.get(kind, kind), rdata


def test_the_hook_answers_for_guests(machine, resolved):
    web = machine.attach_guest("web")
    assert resolve(resolved, ("web.moat.internal", "A"), ("web.moat.internal", "AAAA")) == (
        0, [("web.moat.internal", "A", web.ip_address)])
    assert resolve(resolved, ("WEB.Moat.Internal.", "A")) == (0, [("web.moat.internal", "A", web.ip_address)])
    assert resolve(resolved, ("web.moat.internal", "AAAA")) == (0, []), "it exists, without an IPv6 address"
    reverse = ".".join(reversed(web.ip_address.split("."))) + ".in-addr.arpa"
    assert resolve(resolved, (reverse, "PTR")) == (0, [(reverse, "PTR", "web.moat.internal")])
    assert resolve(resolved, ("host.moat.internal", "A")) == (0, [("host.moat.internal", "A", web.gateway)])
    # What is not there, or is not ours.
    assert resolve(resolved, ("nobody.moat.internal", "A"), ("nobody.moat.internal", "AAAA")) == (3, [])
    assert resolve(resolved, ("www.example.com", "A")) == {}
    assert resolve(resolved, ("web", "A")) == {}, "single labels are for others to complete"
    assert resolve(resolved, ("7.7.7.7.in-addr.arpa", "PTR")) == {}
    # A name is there when `attach` has answered, and gone when `detach` has.
    for i in range(20):
        guest = machine.attach_guest(f"guest{i}")
        assert resolve(resolved, (f"guest{i}.moat.internal", "A"))[1][0][2] == guest.ip_address
        guest.end()
        assert resolve(resolved, (f"guest{i}.moat.internal", "A")) == (3, [])


def test_static_records_and_aliases(machine, resolved):
    machine.moat("dns", "add", "db", "192.0.2.7")
    machine.moat("dns", "add", "www", "CNAME", "db")
    machine.moat("dns", "add", "cdn", "CNAME", "www.example.org")
    machine.moat("dns", "add", "*.apps", "192.0.2.8")
    machine.moat("dns", "add", "db.corp.example", "192.0.2.9")
    assert resolve(resolved, ("www.moat.internal", "A")) == (
        0, [("db.moat.internal", "A", "192.0.2.7"), ("www.moat.internal", "CNAME", "db.moat.internal")])
    assert resolve(resolved, ("cdn.moat.internal", "A")) == (
        0, [("cdn.moat.internal", "CNAME", "www.example.org")]), "systemd-resolved goes on with the name"
    assert resolve(resolved, ("any.apps.moat.internal", "A")) == (0, [("any.apps.moat.internal", "A", "192.0.2.8")])
    assert resolve(resolved, ("db.corp.example", "A")) == (0, [("db.corp.example", "A", "192.0.2.9")])
    assert resolve(resolved, ("other.corp.example", "A")) == {}


def test_the_filter_follows_the_networks(machine, resolved, clients):
    assert resolved.call(HOOK + "QueryFilter") == {"parameters": {"filterDomains": ["moat.internal", "88.10.in-addr.arpa"]}}
    assert resolved.call(HOOK + "QueryFilter", more=True) == {
        "parameters": {"filterDomains": ["moat.internal", "88.10.in-addr.arpa"]}, "continues": True}
    machine.call("network.create", name="blue", subnet="10.9.0.0/23", subnet6="fd00:9::/64")
    blue = {"9.10.in-addr.arpa", "0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa"}
    assert blue < set(resolved.reply()["parameters"]["filterDomains"])
    machine.call("network.remove", name="blue")
    reply = resolved.reply()
    assert reply["continues"] and not blue & set(reply["parameters"]["filterDomains"]), reply
    # Another connection asks meanwhile.
    web = machine.attach_guest("web")
    assert resolve(connect(machine, clients), ("web.moat.internal", "A"))[1][0][2] == web.ip_address


@pytest.mark.parametrize("data", [b"{]\n", b"nonsense\n", b"[]\n", b"\n", b'{"method":1}\n', b"x" * 9000 + b"\n", b"[" * 5000 + b"\n",
                                  b'{"method":"io.systemd.Resolve.Hook.ResolveRecord","parameters":{"question":[' + b'{},' * 40 + b"{}]}}\n",
                                  b'{"method":"io.systemd.Resolve.Hook.QueryFilter"}' * 2 + b"\n"])
def test_what_is_malformed_ends_its_connection_only(machine, resolved, clients, data):
    other = connect(machine, clients)
    resolved.send(data)
    assert resolved.reply() is None, "the connection has ended"
    assert resolve(other, ("nobody.moat.internal", "A")) == (3, [])


def test_what_it_does_not_know_is_refused(resolved):
    assert resolved.call("io.systemd.Resolve.Hook.Nothing") == {
        "error": "org.varlink.service.MethodNotFound", "parameters": {"method": "io.systemd.Resolve.Hook.Nothing"}}
    assert resolved.call('a"b')["parameters"] == {"method": ""}
    for parameters in ({}, {"question": []}):
        assert resolved.call(HOOK + "ResolveRecord", **parameters)["error"] == "org.varlink.service.InvalidParameter"
    for name, kind in (("web.moat.internal", 0), ("web.moat.internal", 70000), ("web.moat.internal", 41), ("x" * 64 + ".moat.internal", "A"),
                       ("a..moat.internal", "A"), ("", "A"), ("x." * 200 + "moat.internal", "A")):
        assert resolve(resolved, (name, kind)) == {}, name
    # Calls that come together are answered one by one.
    question = b'{"method":"io.systemd.Resolve.Hook.ResolveRecord","parameters":{"question":[{"key":{"class":1,"type":1,"name":"n.moat.internal"}}]}}\n'
    resolved.send(question * 30)
    for _ in range(30):
        assert resolved.reply() == {"parameters": {"rcode": 3}}


def test_the_socket_comes_and_goes(machine, clients):
    machine.start()
    machine.attach_guest("web")
    machine.run("mkdir", "-p", DIRECTORY)  # systemd is upgraded while moatd runs
    try:
        assert resolve(connect(machine, clients), ("web.moat.internal", "A"))[0] == 0
        machine.run("rm", "-r", DIRECTORY)
        machine.run("mkdir", DIRECTORY)
        assert resolve(connect(machine, clients), ("web.moat.internal", "A"))[0] == 0
        machine.stop()
        assert not is_there(machine), "moatd has stopped"
        machine.start()
        kept = connect(machine, clients)
        assert resolve(kept, ("web.moat.internal", "A"))[0] == 0
        machine.crash()  # the socket stays, and nobody listens
        assert resolve(kept, ("web.moat.internal", "A"))[0] == 0, "the worker goes on answering"
        with pytest.raises(varlink.Refused):
            varlink.Client(machine, SOCKET)
        machine.start()

        def answers():
            try:
                return resolve(connect(machine, clients), ("web.moat.internal", "A"))[0] == 0
            except varlink.Refused:
                return False

        wait_for(answers, 10, "the next moatd's socket")
        os.kill(machine.call("system.status")["dns_pid"], 9)  # the worker is started again
        wait_for(answers, 10, "the next worker")
        machine.moat("teardown", "--yes")
        machine.stop()
        assert not is_there(machine), "everything is removed"
    finally:
        machine.run("rm", "-rf", "/run/systemd")


def test_nobody_else_is_answered(machine, directory, world, clients):
    """Neither other users, nor the systemd-resolved of another network namespace; a file of somebody else stays."""
    machine.write(SOCKET, "not ours")
    machine.start()
    wait_for(lambda: "io.moat" in machine.daemon.log(), 10, "the warning")
    assert machine.read(SOCKET) == "not ours"
    machine.run("rm", SOCKET)
    wait_for(lambda: is_there(machine), 10, "the socket")
    with pytest.raises(varlink.Refused):
        varlink.Client(machine, SOCKET, "setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--")
    foreign = varlink.Client(machine, SOCKET, "unshare", "--net")
    clients.append(foreign)
    assert foreign.reply() is None
    wait_for(lambda: not is_there(machine), 5, "the socket to be gone")


def test_it_may_be_left_alone(machine, directory):
    machine.configure("[dns]\nresolved = no\n")
    machine.start()
    machine.attach_guest("web")
    assert not is_there(machine)
