# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses: which one a guest gets, that nobody else has it, and what happens when all are used."""

import ipaddress
import threading

import pytest

import rpc
from wait import Stopwatch, wait_for


def attach(host, name, space, network="default", **wishes):
    result = host.call("guest.attach", name=name, kind="netns", pid=space.pid, networks=[{"name": network, **wishes}])
    return result["endpoints"][0]["ip"]


def detach(host, name):
    host.call("guest.detach", name=name)


@pytest.fixture
def small(host):
    """A network with five addresses to give: .2 to .6."""
    host.call("network.create", name="small", subnet="10.9.0.0/29")
    return "small"


def spaces(host, count):
    return [host.guest_space(f"s{i}") for i in range(count)]


def test_the_first_guests_get_the_first_addresses(host):
    a, b = spaces(host, 2)
    assert attach(host, "a", a) == "10.88.0.2"
    assert attach(host, "b", b) == "10.88.0.3"


def test_an_address_that_was_just_freed_rests(host, small):
    space, = spaces(host, 1)
    given = []
    for i in range(5):
        given.append(attach(host, f"g{i}", space, small))
        detach(host, f"g{i}")
    assert given == [f"10.9.0.{n}" for n in range(2, 7)], "an address was given again while others were free"


def test_the_longest_freed_address_comes_first(host, small):
    all_spaces = spaces(host, 5)
    for i, space in enumerate(all_spaces):
        attach(host, f"g{i}", space, small)
    for name in ("g3", "g1", "g4"):
        detach(host, name)
    assert [attach(host, f"n{i}", all_spaces[k], small) for i, k in enumerate((3, 1, 4))] == ["10.9.0.5", "10.9.0.3", "10.9.0.6"]


def test_a_guest_of_the_same_name_gets_its_address_again(host, small):
    one, two = spaces(host, 2)
    first = attach(host, "web", one, small)
    attach(host, "other", two, small)
    for _ in range(3):
        detach(host, "web")
        assert attach(host, "web", one, small) == first


def test_the_same_name_gets_another_address_when_its_own_is_taken(host, small):
    one, two = spaces(host, 2)
    first = attach(host, "web", one, small)
    detach(host, "web")
    attach(host, "thief", two, small, ip=first)
    assert attach(host, "web", one, small) != first


def test_rest_and_memory_outlive_a_restart(host, small):
    one, two, three = spaces(host, 3)
    web = attach(host, "web", one, small)
    detach(host, "web")
    host.restart()
    other = attach(host, "other", two, small)
    assert other != web, "the rest was forgotten"
    assert attach(host, "web", one, small) == web, "the name's address was forgotten"


def test_a_wish_is_granted(host):
    one, two = spaces(host, 2)
    assert attach(host, "a", one, ip="10.88.200.7") == "10.88.200.7"
    assert attach(host, "b", two) == "10.88.0.2"


def test_a_wish_for_a_taken_address_names_its_holder(host):
    one, two = spaces(host, 2)
    attach(host, "holder", one, ip="10.88.0.9")
    with pytest.raises(rpc.RpcError) as caught:
        attach(host, "b", two, ip="10.88.0.9")
    assert caught.value.reason == "address_in_use" and "holder" in caught.value.message
    host.refused("attach", "b", "--network", "default,ip=10.88.0.9", "--pid", two.pid, says=["10.88.0.9", "holder"])
    assert host.guest_names() == ["holder"]


@pytest.mark.parametrize("address", ["10.88.0.0", "10.88.255.255", "10.88.0.1", "10.89.0.5", "192.168.77.10", "0.0.0.0", "127.0.0.1"])
def test_wishes_that_can_not_be_granted(host, address):
    space, = spaces(host, 1)
    with pytest.raises(rpc.RpcError) as caught:
        attach(host, "a", space, ip=address)
    assert caught.value.reason in ("address_outside", "address_in_use") or caught.value.field, str(caught.value)
    assert host.guest_names() == []
    assert set(space.links()) == {"lo"}


def test_given_addresses_skip_wished_ones(host, small):
    all_spaces = spaces(host, 5)
    attach(host, "w", all_spaces[0], small, ip="10.9.0.3")
    given = [attach(host, f"g{i}", all_spaces[i + 1], small) for i in range(4)]
    assert given == ["10.9.0.2", "10.9.0.4", "10.9.0.5", "10.9.0.6"]


def test_exhausted_only_when_truly_full(host, small):
    all_spaces = spaces(host, 6)
    given = {attach(host, f"g{i}", all_spaces[i], small) for i in range(5)}
    assert given == {f"10.9.0.{n}" for n in range(2, 7)}
    with pytest.raises(rpc.RpcError) as caught:
        attach(host, "late", all_spaces[5], small)
    assert caught.value.reason == "no_free_address"
    outcome = host.refused("attach", "late", "--network", small, "--pid", all_spaces[5].pid, says=["small", "5"])
    assert outcome.err.count("5") >= 2 or "all 5" in outcome.err, f"does not say how many are used of how many:\n{outcome}"
    detach(host, "g2")
    assert attach(host, "late", all_spaces[5], small) == "10.9.0.4"


def test_the_smallest_network_has_one_guest(host):
    host.call("network.create", name="tiny", subnet="10.9.0.0/30")
    one, two = spaces(host, 2)
    assert attach(host, "a", one, "tiny") == "10.9.0.2"
    with pytest.raises(rpc.RpcError) as caught:
        attach(host, "b", two, "tiny")
    assert caught.value.reason == "no_free_address"


def test_a_failed_attach_takes_no_address(host, small):
    one, two = spaces(host, 2)
    attach(host, "holder", one, small)
    for _ in range(3):
        with pytest.raises(rpc.RpcError):
            host.call("guest.attach", name="bad", kind="netns", pid=two.pid,
                      networks=[{"name": small}, {"name": "default", "ip": "10.89.0.1"}])
    given = [attach(host, f"g{i}", space, small) for i, space in enumerate(spaces(host, 4))]
    assert len(set(given)) == 4


def test_addresses_of_several_networks_are_apart(host):
    host.call("network.create", name="a", subnet="10.9.0.0/24")
    host.call("network.create", name="b", subnet="10.10.0.0/24")
    guest = host.guest_space()
    result = host.call("guest.attach", name="g", kind="netns", pid=guest.pid, networks=[{"name": "a"}, {"name": "b"}])
    assert [e["ip"] for e in result["endpoints"]] == ["10.9.0.2", "10.10.0.2"]


def test_mac_addresses_are_unique_local_unicast(host):
    macs = [host.attach_guest(f"g{i}").endpoint()["mac"] for i in range(8)]
    assert len(set(macs)) == 8
    for mac in macs:
        assert int(mac[:2], 16) & 3 == 2, f"{mac} is not a locally administered unicast address"


def test_a_taken_mac_is_refused(host):
    one, two = spaces(host, 2)
    attach(host, "a", one, mac="02:00:00:00:00:05")
    with pytest.raises(rpc.RpcError) as caught:
        attach(host, "b", two, mac="02:00:00:00:00:05")
    assert caught.value.reason == "address_in_use" and "a" in caught.value.message
    assert host.guest_names() == ["a"]


@pytest.mark.parametrize("mac", ["01:00:00:00:00:05", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:00:00:00", "zz"])
def test_impossible_macs_are_refused(host, mac):
    space, = spaces(host, 1)
    with pytest.raises(rpc.RpcError) as caught:
        attach(host, "b", space, mac=mac)
    assert caught.value.code == -32602 and "mac" in caught.value.field


def test_addresses_are_unique_under_concurrency(host):
    """Eight connections attach and detach as fast as they can; nobody ever shares an address."""
    holders, lock, wrong = {}, threading.Lock(), []

    def work(number):
        space = all_spaces[number]
        with rpc.Rpc(host.socket_path) as connection:
            for i in range(25):
                name = f"g{number}-{i}"
                try:
                    result = connection.call("guest.attach", name=name, kind="netns", pid=space.pid,
                                             networks=[{"name": "default"}])
                    address = result["endpoints"][0]["ip"]
                    with lock:
                        if address in holders:
                            wrong.append(f"{address} of {holders[address]} was given to {name}")
                        holders[address] = name
                    with lock:
                        del holders[address]
                    connection.call("guest.detach", name=name)
                except Exception as error:
                    wrong.append(f"{name}: {error}")

    all_spaces = spaces(host, 8)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:5]
    assert host.guest_names() == []


def test_callers_at_once_fill_a_network_exactly(host):
    host.call("network.create", name="some", subnet="10.9.0.0/28")  # 13 addresses
    given, refused = [], []

    def work(space, number):
        try:
            with rpc.Rpc(host.socket_path) as connection:
                result = connection.call("guest.attach", name=f"g{number}", kind="netns", pid=space.pid,
                                         networks=[{"name": "some"}])
            given.append(result["endpoints"][0]["ip"])
        except rpc.RpcError as error:
            refused.append(error.reason)

    all_spaces = spaces(host, 16)
    threads = [threading.Thread(target=work, args=(space, i)) for i, space in enumerate(all_spaces)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 13
    assert refused == ["no_free_address"] * 3
    assert {ipaddress.ip_address(a) for a in given} == set(list(ipaddress.ip_network("10.9.0.0/28"))[2:-1])


def test_the_answer_to_exhaustion_is_quick(host):
    """Finding that a network is full must not walk it."""
    host.call("network.create", name="range", subnet="10.9.0.0/16", ip_range="10.9.255.252/31")
    for i, space in enumerate(spaces(host, 2)):
        attach(host, f"g{i}", space, "range")
    late, = spaces(host, 1)
    with Stopwatch() as watch:
        for _ in range(50):
            with pytest.raises(rpc.RpcError):
                attach(host, "late", late, "range")
    assert watch.ms < 1000, f"{watch.ms / 50:.1f} ms each"


# A LAN or VPN that comes later

@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("how", ["address", "route"])
def test_a_later_collision_is_an_event_and_a_finding(host, family, how):
    host.moat("net", "create", "blue", "--subnet", "10.77.0.0/24", "--subnet6", "fd00:77::/64")
    stream = host.rpc().subscribe()
    mine = {4: "10.77.0.99/24", 6: "fd00:77::99/64"}[family]
    wide = {4: "10.77.0.0/20", 6: "fd00:77::/56"}[family]
    ip = ["-6"] if family == 6 else []
    what = ["address", mine] if how == "address" else ["route", wide]
    assert host.moat("doctor").code == 0
    host.ip(*ip, what[0], "add", what[1], "dev", "eth0")
    try:
        event = stream.event_where(lambda event: event["type"] == "subnet.collision")
        assert event["network"] == "blue" and what[1] in event["detail"], event
        outcome = host.moat("doctor", check=False)
        assert outcome.code == 1 and "network blue" in outcome.out and "eth0" in outcome.out
        assert "MTU" not in host.daemon.log(), "the first look found an MTU that guests had not been told"
    finally:
        host.ip(*ip, what[0], "del", what[1], "dev", "eth0")
    assert host.moat("doctor").code == 0


def test_each_collision_of_a_network_is_said_once(host):
    """One family's does not hide the other's, nor a second prefix; and one that comes again is said again."""
    host.moat("net", "create", "blue", "--subnet", "10.77.0.0/24", "--subnet6", "fd00:77::/64")
    stream = host.rpc().subscribe()
    commands = [("address", "10.77.0.99/24"), ("address", "fd00:77::99/64"), ("route", "fd00:77::/56")]

    def change(verb, index):
        family = ["-6"] if ":" in commands[index][1] else []
        host.ip(*family, commands[index][0], verb, commands[index][1], "dev", "eth0")

    def said():
        return stream.event_where(lambda event: event["type"] == "subnet.collision")["detail"].split()[0]

    try:
        for i, (_, prefix) in enumerate(commands):
            change("add", i)
            assert said() == prefix
        found = host.moat("doctor", check=False).out
        for prefix in ("10.77.0.0/24", "fd00:77::/64", "fd00:77::/56"):
            assert f"overlaps {prefix} on eth0" in found, found
        change("del", 1)
        wait_for(lambda: "overlaps fd00:77::/64" not in host.moat("doctor", check=False).out, 3)
        host.call("network.create", name="other", subnet="10.78.0.0/24")
        host.ip("address", "add", "10.78.0.99/24", "dev", "eth0")  # what is said next has seen the address go
        assert said() == "10.78.0.99/24"
        change("add", 1)
        assert said() == "fd00:77::99/64"
    finally:
        for i in range(len(commands)):
            change("del", i)
        host.run("ip", "address", "del", "10.78.0.99/24", "dev", "eth0", check=False)
