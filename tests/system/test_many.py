# SPDX-License-Identifier: GPL-2.0-or-later
"""Many guests and many callers."""

import json
import os
import random
import signal
import threading

import pytest

import dns
import rpc
import servers
import topology
from wait import PATIENCE, Stopwatch, wait_for


def in_threads(count, work):
    """Run work(number) in threads; what they raised is said together."""
    wrong = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            wrong.append(f"caller {number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, "\n".join(wrong)


def test_eight_callers_attach_and_detach_at_once(host):
    """Each caller's guests are right the moment its answer is there, whatever the others do."""
    before = host.kernel()
    spaces = [host.guest_space() for _ in range(8)]
    seen, lock = {}, threading.Lock()

    def work(number):
        space = spaces[number]
        with rpc.Rpc(host.socket_path) as connection:
            for i in range(15):
                name = f"g{number}-{i}"
                mode = "outbound" if (number + i) % 3 == 0 else "full"
                ports = [] if mode == "outbound" else [f"{20000 + number * 100 + i}:80"]
                info = connection.call("guest.attach", name=name, kind="netns", pid=space.pid, mode=mode,
                                       networks=[{"name": "default"}], ports=ports)
                address = info["endpoints"][0]["ip"]
                with lock:
                    assert address not in seen, f"{address} is {seen[address]}'s"
                    seen[address] = name
                assert space.addresses("eth0") == [address]
                assert space.ping(topology.INTERNET), f"{name} has no way out"
                assert dns.ask(space, "10.88.0.1", name).data == [address]
                if ports and i % 5 == 0:
                    with servers.TcpServer(space, 80, name=name):
                        assert servers.tcp_greeting(host, topology.HOST, 20000 + number * 100 + i)[0] == name
                with lock:
                    del seen[address]
                connection.call("guest.detach", name=name)

    in_threads(8, work)
    assert host.guest_names() == []
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))


def test_eight_callers_run_commands_at_once(host):
    def work(number):
        for i in range(4):
            outcome = host.moat("run", "-n", f"g{number}-{i}", "--", "sh", "-c", f"ping -c1 -W3 {topology.INTERNET} >/dev/null && exit {number}",
                                check=False)
            assert outcome.code == number, str(outcome)

    in_threads(8, work)
    wait_for(lambda: host.guest_names() == [], 3, "all guests to be gone")


def test_callers_that_want_the_same(host):
    """One name, one address, one port, one subnet: exactly one of eight gets it, the others are told why."""
    spaces = [host.guest_space() for _ in range(8)]
    cases = {
        "exists": lambda n: ("guest.attach", {"name": "same", "kind": "netns", "pid": spaces[n].pid, "networks": [{"name": "default"}]}),
        "address_in_use": lambda n: ("guest.attach", {"name": f"a{n}", "kind": "netns", "pid": spaces[n].pid,
                                                      "networks": [{"name": "default", "ip": "10.88.9.9"}]}),
        "port_in_use": lambda n: ("guest.attach", {"name": f"p{n}", "kind": "netns", "pid": spaces[n].pid,
                                                   "networks": [{"name": "default"}], "ports": ["8080:80"]}),
        "subnet_overlap": lambda n: ("network.create", {"name": f"n{n}", "subnet": "10.9.0.0/24"}),
    }
    for reason, request in cases.items():
        won, refused = [], []

        def work(number):
            method, params = request(number)
            with rpc.Rpc(host.socket_path) as connection:
                try:
                    won.append(connection.call(method, **params)["name"])
                except rpc.RpcError as error:
                    refused.append(error.reason)

        in_threads(8, work)
        assert len(won) == 1 and refused == [reason] * 7, f"{reason}: {won} {refused}"
        for name in host.guest_names():
            host.call("guest.detach", name=name)


def test_networks_made_and_removed_at_once(host):
    before = host.kernel()

    def work(number):
        with rpc.Rpc(host.socket_path) as connection:
            for i in range(10):
                name = f"n{number}-{i}"
                connection.call("network.create", name=name)
                connection.call("network.remove", name=name)

    in_threads(8, work)
    assert [n["name"] for n in host.call("network.list")] == ["default"]
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))


def test_ports_of_one_guest_from_eight_callers(host):
    host.attach_guest("web")

    def work(number):
        with rpc.Rpc(host.socket_path) as connection:
            for i in range(20):
                port = f"{20000 + number}:{80 + i}/{'udp' if i % 2 else 'tcp'}"
                connection.call("port.add", guest="web", ports=[port])
                connection.call("port.remove", guest="web", ports=[port])

    in_threads(8, work)
    assert host.call("port.list") == []


@pytest.mark.slow
@pytest.mark.limit(150)
def test_three_hundred_guests(host, lan):
    spaces = [host.guest_space() for _ in range(300)]
    addresses, times = {}, []
    for i, space in enumerate(spaces):
        with Stopwatch() as watch:
            info = host.call("guest.attach", name=f"g{i}", kind="netns", pid=space.pid, networks=[{"name": "default"}],
                             mode="outbound" if i % 10 == 9 else "full", ports=[] if i % 10 == 9 else [f"{20000 + i}:80"])
        times.append(watch.ms)
        addresses[f"g{i}"] = info["endpoints"][0]["ip"]
    assert len(set(addresses.values())) == 300
    assert len(host.moat("ps", "-q").out.split()) == 300
    chooser = random.Random(1)
    for _ in range(30):
        one, other = chooser.sample(range(300), 2)
        if other % 10 != 9:
            assert spaces[one].ping(addresses[f"g{other}"]), f"g{one} does not reach g{other}"
        assert dns.ask(spaces[one], "10.88.0.1", f"g{other}").data == [addresses[f"g{other}"]]
    for i in (0, 151, 298):
        with servers.TcpServer(spaces[i], 80, name=f"g{i}"):
            assert servers.tcp_greeting(lan, topology.HOST, 20000 + i) == (f"g{i}", topology.LAN)
    early, late = sorted(times[:50])[25], sorted(times[-50:])[25]
    assert late < max(6 * early, 20 * PATIENCE), f"attach takes {early:.1f} ms at first and {late:.1f} ms at 300 guests"
    with Stopwatch() as watch:
        host.restart()
    assert watch.ms < 10000 * PATIENCE
    assert spaces[150].ping(topology.INTERNET)
    for i in range(300):
        host.call("guest.detach", name=f"g{i}")
    wait_for(lambda: not [n for n in host.links() if n.startswith("mv")], 10, "all links to be gone")


def test_a_guest_with_many_names_and_ports(host, lan):
    aliases = ",".join(f"alias=a{i}" for i in range(16))
    guest = host.attach_guest("web", *[x for i in range(100) for x in ("-p", f"{20000 + i}:{7000 + i}/udp")],
                              network=f"default,{aliases}")
    for i in range(16):
        assert dns.ask(guest, guest.gateway, f"a{i}").data == [guest.ip_address]
    with servers.UdpServer(guest, 7099):
        assert servers.udp_greeting(lan, topology.HOST, 20099)[0] == "udp"


def test_descriptors_of_moatd_do_not_grow(host):
    def count():
        return len(os.listdir(f"/proc/{host.daemon.pid}/fd"))

    space = host.guest_space()

    def once(i):
        host.call("guest.attach", name=f"g{i}", kind="netns", pid=space.pid, networks=[{"name": "default"}], ports=["8080:80", "8080:80/udp"])
        host.call("guest.detach", name=f"g{i}")
        host.call("network.create", name="blue")
        host.call("network.remove", name="blue")

    for i in range(5):
        once(i)
    before = count()
    for i in range(40):
        once(i)
    assert count() <= before + 1, f"{before} → {count()} descriptors after 40 guests"


def test_ports_can_be_had_while_others_come_and_go(host):
    """Who wants ports waits for those that were given back before, not for all that are meanwhile."""
    host.attach_guest("g")
    spaces = [host.guest_space() for _ in range(4)]
    served = threading.Event()

    def come_and_go(number):
        with rpc.Rpc(host.socket_path) as connection:
            while not served.is_set():
                connection.call("guest.attach", name=f"other{number}", kind="netns", pid=spaces[number].pid,
                                networks=[{"name": "default"}],
                                ports=[f"{8000 + 64 * number + i}:80" for i in range(64)])
                connection.call("guest.detach", name=f"other{number}")

    def want():
        try:
            for _ in range(10):
                with Stopwatch() as watch:
                    host.call("port.add", guest="g", ports=["9090:80"])
                    host.call("port.remove", guest="g", ports=["9090:80"])
                assert watch.ms < min(2000 * PATIENCE, 4500), f"{watch.ms:.0f} ms"  # 5 s: it was in vain
        finally:
            served.set()

    in_threads(5, lambda number: want() if number == 4 else come_and_go(number))


# Detaches that come together go together

@pytest.fixture
def together(host):
    """Sends one line on each of several connections, all of which moatd finds at once; their answers."""

    def send(lines, meanwhile=lambda: None):
        connections = [rpc.Rpc(host.socket_path) for _ in lines]
        for connection in connections:
            connection.call("system.status")  # it is accepted
        os.kill(host.daemon.pid, signal.SIGSTOP)
        try:
            for connection, line in zip(connections, lines):
                connection.send(line)
            meanwhile()
        finally:
            os.kill(host.daemon.pid, signal.SIGCONT)
        answers = [connection.receive() for connection in connections]
        for connection in connections:
            connection.close()
        return answers

    return send


def detach(name, **params):
    return {"jsonrpc": "2.0", "id": name, "method": "guest.detach", "params": {"name": name, **params}}


def some_of_each_kind(host):
    host.moat("net", "create", "blue", "--ipv6")
    host.attach_guest("plain")
    host.attach_guest("open", "-p", "8080:80", "-p", "8053:53/udp")
    host.attach_guest("ruled", "--allow", "192.0.2.0/24", "--deny", "192.0.2.9")
    host.attach_guest("named", "--allow", "example.test")
    host.attach_guest("hidden", "--mode", "outbound")
    host.attach_guest("six", network="blue")
    host.moat("attach", "vm", "--network", "blue", "--tap", "-p", "8081:80")
    return ["plain", "open", "ruled", "named", "hidden", "six", "vm"]


def test_detaches_of_all_kinds_at_once(host, together):
    before = host.kernel()
    names = some_of_each_kind(host)
    answers = together([detach(name) for name in names])
    assert [answer["result"] for answer in answers] == [{}] * len(names)
    assert host.guest_names() == [] and host.call("port.list") == []
    host.moat("net", "rm", "blue")
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))
    assert "repair" not in host.daemon.log()


def outcomes(answers):
    """What became of each detach: its name, and the reason where it was refused."""
    flat = [answer for line in answers for answer in (line if isinstance(line, list) else [line])]
    return sorted((answer["id"], answer["error"]["data"]["reason"] if "error" in answer else "") for answer in flat)


def test_each_of_several_detaches_has_its_own_answer(host, together):
    host.moat("net", "create", "blue")
    for name in ("one", "two", "three"):
        host.attach_guest(name)
    host.moat("attach", "three", "--network", "blue")
    assert outcomes(together([detach("one"), detach("nobody"), detach("one"), [detach("two"), detach("two")]])) == [
        ("nobody", "not_found"), ("one", ""), ("one", "not_found"), ("two", ""), ("two", "not_found")]
    assert outcomes(together([detach("three", network="blue"), detach("nobody"), detach("three", network="blue")])) == [
        ("nobody", "not_found"), ("three", ""), ("three", "not_found")]
    assert host.guest_names() == ["three"]


def test_a_thousand_detaches_on_one_connection(host):
    """Each in its turn, and others in between."""
    host.attach_guest("g")
    with rpc.Rpc(host.socket_path) as many:
        many.send_raw(b"".join(json.dumps(detach(f"n{i}")).encode() + b"\n" for i in range(1000)))
        assert host.call("guest.get", name="g")["name"] == "g"
        assert [many.receive()["id"] for _ in range(1000)] == [f"n{i}" for i in range(1000)]


def test_an_element_that_somebody_removed_holds_no_detach_up(host, together):
    before = host.kernel()
    host.stop()
    host.start(env={"MOAT_FAULT": "nat.owner"})  # or the kernel keeps others out of the table
    names = some_of_each_kind(host)
    answers = together([detach(name) for name in names],
                       meanwhile=lambda: host.nft("delete element inet moat pub4 { tcp . 8080 }\n"))
    assert [answer["result"] for answer in answers] == [{}] * len(names)
    assert host.guest_names() == []
    host.moat("net", "rm", "blue")
    host.stop()
    host.start()
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))


# A busy machine

def nice_values(pid):
    """By thread: its name and its nice value."""
    values = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii") as file:
            head, tail = file.read().rsplit(")", 1)
        values[int(thread)] = (head.split("(", 1)[1], int(tail.split()[16]))
    return values


def test_the_loop_goes_before_others(host):
    """Who waits for it waits for everybody before him; what works for guests has no such claim."""
    host.attach_guest("g", "-p", "8080:80")
    status = host.call("system.status")
    threads = nice_values(host.daemon.pid)
    assert threads.pop(host.daemon.pid) == ("moatd", -10)
    assert len(threads) > 2 and {nice for _, nice in threads.values()} == {0}, threads
    for worker in ("dns_pid", "relay_pid"):
        assert {nice for _, nice in nice_values(status[worker]).values()} == {0}
    assert host.moat("run", "--", "nice").out.strip() == str(os.getpriority(os.PRIO_PROCESS, 0))


def test_a_nice_value_of_choice_stays(machine):
    os.setpriority(os.PRIO_PROCESS, 0, 5)  # this process has no way back without privilege, but is root
    try:
        machine.start()
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    assert {nice for _, nice in nice_values(machine.daemon.pid).values()} == {5}
