# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules by domain name: what is asked of the outside, what the answers open, for whom, and for how long."""

import os
import random
import socket
import struct
import threading

import pytest

import dns
import servers
import topology
from netns import kill
from test_policy import attempt, refused
from wait import stays, wait_for

NAME = "www.example.org"
FAR = "198.51.100.77"  # one more address of the outside


@pytest.fixture
def far(world, internet):
    """A second address outside, with the same servers."""
    world.outside.ip("address", "add", f"{FAR}/24", "dev", "eth0")
    yield FAR
    world.outside.ip("address", "del", f"{FAR}/24", "dev", "eth0")


@pytest.fixture
def guest(host):
    return host.attach_guest("guest", "--allow", f"{NAME}:7")


def ask(guest, name=NAME, kind="A", **kwargs):
    return dns.ask(guest, guest.gateway, name, kind, **kwargs)


def set_policy(host, *options, guest="guest"):
    host.moat("policy", "set", guest, *options)


def with_ttl(values, ttl, rcode=dns.NOERROR):
    """A row of the outside's name server, with a TTL of its own."""
    return lambda request, over_tcp: dns.DnsServer.reply(request, values, rcode, over_tcp, ttl)


def chain(*names_then_address):
    """An answer of CNAMEs from the question's name on, and an address at the end."""
    *targets, address = names_then_address

    def reply(request, _over_tcp):
        ident, = struct.unpack_from("!H", request)
        _, offset = dns.decode_name(request, 12)
        question = request[12:offset + 4]
        records, owner = b"", b"\xc0\x0c"
        for target in targets:
            raw = dns.encode_name(target)
            records += owner + struct.pack("!2HIH", 5, 1, 60, len(raw)) + raw
            owner = raw
        records += owner + struct.pack("!2HIH", 1, 1, 60, 4) + socket.inet_aton(address)
        return struct.pack("!6H", ident, 0x8180, 1, len(targets) + 1, 0, 0) + question + records
    return reply


# What is asked

@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_other_names_are_refused_and_nobody_hears_of_them(host, guest, internet, tcp):
    internet.dns.add("secret.example.net", "A", topology.INTERNET)
    for kind in ("A", "AAAA", "TXT", "MX", "ANY"):
        assert ask(guest, "secret.example.net", kind, tcp=tcp).rcode == "REFUSED"
        assert ask(guest, f"a.{NAME}", kind, tcp=tcp).rcode == "REFUSED"
        assert ask(guest, "example.org", kind, tcp=tcp).rcode == "REFUSED"
    assert ask(guest, "1.2.0.192.in-addr.arpa", "PTR", tcp=tcp).rcode == "REFUSED"
    assert internet.dns.questions == []
    assert ask(guest, tcp=tcp).data == [topology.INTERNET]
    assert ask(guest, kind="TXT", tcp=tcp).rcode == "NOERROR"
    assert [name for name, _, _ in internet.dns.questions] == [NAME, NAME]


def test_names_of_guests_are_answered_as_before(host, guest):
    peer = host.attach_guest("peer")
    for name in ("peer", "peer.moat.internal", "peer.default.moat.internal"):
        assert ask(guest, name).data == [peer.ip_address]
    assert ask(guest, "nobody").rcode == "NXDOMAIN"


@pytest.mark.parametrize("rule, answered, not_answered", [
    ("a.test.example", ["a.test.example", "A.Test.EXAMPLE"], ["b.a.test.example", "test.example", "xa.test.example"]),
    ("*.test.example", ["a.test.example", "b.a.test.example"], ["test.example", "atest.example", "example"]),
    (".test.example", ["test.example", "a.test.example", "b.a.test.example"], ["atest.example", "example.net"]),
])
def test_what_a_rule_names(host, guest, internet, rule, answered, not_answered):
    set_policy(host, "--allow", rule)
    for name in answered + not_answered:
        internet.dns.add(name, "A", topology.INTERNET)
    for name in answered:
        assert ask(guest, name).rcode == "NOERROR", name
    for name in not_answered:
        assert ask(guest, name).rcode in ("REFUSED", "NXDOMAIN"), name
        assert internet.dns.asked(name) == 0, name


def test_a_denied_domain_is_not_asked_and_the_rest_is(host, guest, internet):
    set_policy(host, "--deny", ".example.net", "--deny", "www.example.com")
    internet.dns.add("www.example.net", "A", topology.INTERNET)
    internet.dns.add("example.com", "A", topology.INTERNET)
    assert ask(guest, "www.example.net").rcode == "REFUSED"
    assert ask(guest, "www.example.com").rcode == "REFUSED"
    assert {name for name, _, _ in internet.dns.questions} == set()
    assert ask(guest, "example.com").data == [topology.INTERNET]
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    set_policy(host, "--allow", ".example.com", "--deny", "www.example.com")
    assert ask(guest, "www.example.com").rcode == "REFUSED"
    assert ask(guest, "example.com").rcode == "NOERROR"


def test_other_name_servers_are_closed_but_for_rules_that_name_the_port(host, guest, internet):
    def reach(protocol, port):
        return attempt(guest, protocol, topology.INTERNET_DNS, port, 0.5)

    with servers.TcpServer(host.world.outside, 853, topology.INTERNET_DNS), \
            servers.UdpServer(host.world.outside, 853, topology.INTERNET_DNS):
        for rules in (["--allow", NAME], ["--allow", NAME, "--allow", "any"], ["--deny", "example.net"],
                      ["--allow", NAME, "--allow", topology.INTERNET_DNS]):
            set_policy(host, *rules)
            for protocol in ("tcp", "udp"):
                for port in (53, 853):
                    assert refused(guest, protocol, topology.INTERNET_DNS, port) is True, (rules, protocol, port)
        assert attempt(guest, "tcp", topology.INTERNET, 7) != "open"
        set_policy(host, "--allow", NAME, "--allow", f"{topology.INTERNET_DNS}:53", "--allow", "any:853/tcp")
        assert dns.ask(guest, topology.INTERNET_DNS, NAME).data == [topology.INTERNET]
        assert reach("tcp", 853) == "open" and refused(guest, "udp", topology.INTERNET_DNS, 853) is True
        set_policy(host, "--deny", "192.0.2.1")
        assert dns.ask(guest, topology.INTERNET_DNS, NAME).data == [topology.INTERNET]


# What answers open

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_address_is_open_once_it_was_given(host, guest, protocol, bridge_nf):
    assert refused(guest, protocol, topology.INTERNET, 7) is True
    assert ask(guest).data == [topology.INTERNET]
    assert attempt(guest, protocol, topology.INTERNET, 7) == "open"
    assert refused(guest, protocol, topology.INTERNET, 80) is True


def test_ports_and_protocols_of_the_rules_count(host, guest, internet, far):
    internet.dns.add("far.example.org", "A", far)
    set_policy(host, "--allow", f"{NAME}:7-8/tcp", "--allow", "far.example.org/icmp", "--allow", "far.example.org:80")
    assert ask(guest).rcode == ask(guest, "far.example.org").rcode == "NOERROR"
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert refused(guest, "udp", topology.INTERNET, 7) is True
    assert attempt(guest, "tcp", topology.INTERNET, 80) == "ECONNREFUSED"
    assert not guest.ping(topology.INTERNET, timeout=0.3)
    assert guest.ping(far) and attempt(guest, "tcp", far, 7) == "ECONNREFUSED"
    set_policy(host, "--allow", NAME)
    assert attempt(guest, "udp", topology.INTERNET, 7) == "open" and guest.ping(topology.INTERNET)


def test_ipv6(host, internet):
    host.moat("net", "create", "six", "--ipv6")
    guest = host.attach_guest("guest", "--allow", f"{NAME}:7", network="six")
    with servers.TcpServer(host.world.outside, 7, topology.INTERNET6, name="outside6"):
        assert refused(guest, "tcp", topology.INTERNET6, 7) is True
        assert ask(guest).data == [topology.INTERNET]
        assert refused(guest, "tcp", topology.INTERNET6, 7) is True
        assert dns.ask(guest, guest.endpoint()["gateway"], NAME, "AAAA").data == [topology.INTERNET6]
        assert attempt(guest, "tcp", topology.INTERNET6, 7) == "open"


def test_an_alias_counts_for_the_name_that_was_asked(host, guest, internet, far):
    internet.dns.table[(NAME, "A")] = [chain("edge.cdn.example", "node.cdn.example", far)]
    internet.dns.add("node.cdn.example", "A", far)
    assert ask(guest, "node.cdn.example").rcode == "REFUSED"
    assert far in ask(guest).data
    assert attempt(guest, "tcp", far, 7) == "open"


def test_only_addresses_of_the_name_are_opened(host, guest, internet, far):
    """A server that adds records of other names opens nothing by them."""

    def stuffed(request, _over_tcp):
        ident, = struct.unpack_from("!H", request)
        _, offset = dns.decode_name(request, 12)
        owner = dns.encode_name("other.example.net")
        records = b"\xc0\x0c" + struct.pack("!2HIH", 1, 1, 60, 4) + socket.inet_aton(topology.INTERNET)
        records += owner + struct.pack("!2HIH", 1, 1, 60, 4) + socket.inet_aton(far)
        return struct.pack("!6H", ident, 0x8180, 1, 2, 0, 0) + request[12:offset + 4] + records

    internet.dns.table[(NAME, "A")] = [stuffed]
    assert topology.INTERNET in ask(guest).data
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert refused(guest, "tcp", far, 7) is True


def test_no_rebinding(host, internet, lan, far):
    """The host, its guests, loopback and link-local addresses stay closed, whoever's name leads there."""
    peer = host.attach_guest("peer")
    host.moat("net", "create", "open", "--host-access")
    host.moat("port", "add", "peer", "8080:7")
    guest = host.attach_guest("guest", "--allow", "*.evil.example", network="open")
    free = host.attach_guest("free", network="open")
    host.ip("address", "add", "203.0.113.9/32", "dev", "lo")
    try:
        with servers.TcpServer(peer, 7, name="peer"), servers.TcpServer(host, 7, name="host"), \
                servers.TcpServer(lan, 7, name="lan"):
            own = [topology.HOST, "203.0.113.9", guest.gateway]
            for i, address in enumerate(own + [free.ip_address, peer.ip_address, "127.0.0.1", "169.254.169.254", "0.0.0.0",
                                               "224.0.0.1"]):
                internet.dns.add(f"n{i}.evil.example", "A", address, far)
                assert address in ask(guest, f"n{i}.evil.example").data
                if address in own:
                    assert attempt(free, "tcp", address, 7) == "open", f"{address}: no control"
                assert attempt(guest, "tcp", address, 7, 0.5) != "open", address
                assert attempt(guest, "tcp", address, 8080, 0.5) != "open", address
                assert attempt(guest, "tcp", far, 7) == "open"
            internet.dns.add("lan.evil.example", "A", topology.LAN)
            assert attempt(guest, "tcp", topology.LAN, 7) == "ECONNREFUSED"
            ask(guest, "lan.evil.example")
            assert attempt(guest, "tcp", topology.LAN, 7) == "open", "a machine beside the host may be named"
    finally:
        host.ip("address", "del", "203.0.113.9/32", "dev", "lo")


def test_what_becomes_the_hosts_is_closed(host, guest, internet):
    internet.dns.table[(NAME, "A")] = ["203.0.113.8"]
    assert ask(guest).data == ["203.0.113.8"]
    host.ip("address", "add", "203.0.113.8/32", "dev", "lo")
    try:
        with servers.TcpServer(host, 7, name="host"):
            assert attempt(guest, "tcp", "203.0.113.8", 7) == "ECONNREFUSED"
    finally:
        host.ip("address", "del", "203.0.113.8/32", "dev", "lo")


def test_each_guest_for_itself(host, guest, internet):
    other = host.attach_guest("other", "--allow", f"{NAME}:7")
    free = host.attach_guest("free")
    assert ask(guest).rcode == "NOERROR"
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert refused(other, "tcp", topology.INTERNET, 7) is True
    assert attempt(free, "tcp", topology.INTERNET, 7) == "open"
    assert ask(other).rcode == "NOERROR" and internet.dns.asked(NAME) == 1, "the answer came from the cache"
    assert attempt(other, "tcp", topology.INTERNET, 7) == "open"


def test_deny_wins(host, guest, internet, far):
    internet.dns.add("far.example.org", "A", far)
    set_policy(host, "--allow", ".example.org", "--deny", f"{far}:80", "--deny", f"{NAME}:7/udp")
    assert ask(guest).rcode == ask(guest, "far.example.org").rcode == "NOERROR"
    assert attempt(guest, "tcp", far, 7) == "open" and attempt(guest, "tcp", far, 80) == "ECONNREFUSED"
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert refused(guest, "udp", topology.INTERNET, 7) is True
    internet.dns.add("two.example.org", "A", topology.INTERNET)
    assert ask(guest, "two.example.org").rcode == "NOERROR"
    assert refused(guest, "udp", topology.INTERNET, 7) is True, "another name of the same address is no way round"
    set_policy(host, "--allow", "any", "--deny", f"{NAME}:7/udp")
    assert ask(guest).rcode == "NOERROR"
    assert refused(guest, "udp", topology.INTERNET, 7) is True
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open" and attempt(guest, "tcp", far, 7) == "open"


def test_names_beside_addresses(host, guest, internet, far):
    set_policy(host, "--allow", f"{NAME}:7", "--allow", f"{far}:80")
    assert attempt(guest, "tcp", far, 7) == "ECONNREFUSED" and attempt(guest, "tcp", topology.INTERNET, 7) == "ECONNREFUSED"
    ask(guest)
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open" and attempt(guest, "tcp", far, 7) == "ECONNREFUSED"


def test_a_static_name_opens_its_address(host, guest, far):
    host.moat("dns", "add", "db.example.com", far)
    assert ask(guest, "db.example.com").data == [far]
    assert refused(guest, "tcp", far, 7) is True
    set_policy(host, "--allow", "db.example.com:7")
    assert ask(guest, "db.example.com").data == [far]
    assert attempt(guest, "tcp", far, 7) == "open"


def test_a_program_finds_its_way(host, internet):
    program = f"import urllib.request as u; print(u.urlopen('http://{NAME}/', timeout=5).read().decode())"
    assert "hello from outside" in host.moat("run", "--allow", f"{NAME}:80", "--", "python3", "-c", program).out
    outcome = host.moat("run", "--allow", "example.net:80", "--", "python3", "-c", program, check=False)
    assert outcome.code == 1 and internet.dns.asked(NAME) <= 2


# How long

def short(machine):
    machine.configure("[policy]\ngrace = 1\n")
    machine.start()
    return machine


def test_it_ends_with_ttl_and_grace_and_connections_go_on(machine, internet):
    host = short(machine)
    guest = host.attach_guest("guest", "--allow", f"{NAME}:7")
    internet.dns.table[(NAME, "A")] = [with_ttl([topology.INTERNET], 1)]
    ask(guest)
    with servers.connect(guest, topology.INTERNET, 7) as sock:
        servers.read_line(sock)
        wait_for(lambda: attempt(guest, "tcp", topology.INTERNET, 7, 0.5) == "ECONNREFUSED", 10, "the end of the opening")
        sock.sendall(b"x" * 5000)
        assert len(dns.receive_exactly(sock, 5000)) == 5000
        ask(guest)
        assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"


def test_answers_from_the_cache_open_too(machine, internet):
    host = short(machine)
    guest = host.attach_guest("guest", "--allow", f"{NAME}:7")
    internet.dns.table[(NAME, "A")] = [with_ttl([topology.INTERNET], 3)]

    def resolve_and_connect():
        answer = ask(guest)
        return answer.data == [topology.INTERNET] and attempt(guest, "tcp", topology.INTERNET, 7) == "open"

    stays(resolve_and_connect, 6, "an answer whose address was closed", every=0.05)
    assert 2 <= internet.dns.asked(NAME) <= 8, "the cache was used"


# Its life

def test_a_change_of_the_rules_keeps_what_they_still_name(host, guest, internet, far):
    internet.dns.add("far.example.org", "A", far)
    set_policy(host, "--allow", ".example.org")
    ask(guest)
    ask(guest, "far.example.org")
    for address in (topology.INTERNET, far):
        assert attempt(guest, "tcp", address, 7) == "open"
    set_policy(host, "--allow", "far.example.org:7", "--allow", "192.0.2.0/24")
    assert attempt(guest, "tcp", far, 7) == "open" and attempt(guest, "tcp", far, 80) == "ECONNREFUSED"
    assert refused(guest, "tcp", topology.INTERNET, 7) is True
    set_policy(host, "--allow", "192.0.2.0/24")
    assert refused(guest, "tcp", far, 7) is True
    assert ask(guest, "far.example.org").rcode == "NOERROR", "without domain rules every name is asked"


def test_what_runs_is_cut_by_names_too(machine, internet, far):
    """--cut ends what the rules don't name any more, and leaves what was opened by a name that they do, also when
    its time is over."""
    host = short(machine)
    internet.dns.table[(NAME, "A")] = [with_ttl([topology.INTERNET], 0)]
    guest = host.attach_guest("guest", "--allow", f"{NAME}:7")
    ask(guest)
    with servers.connect(guest, topology.INTERNET, 7) as sock:
        servers.read_line(sock)
        wait_for(lambda: attempt(guest, "tcp", topology.INTERNET, 7, 0.5) == "ECONNREFUSED", 10, "the end of the opening")
        set_policy(host, "--cut", "--allow", ".example.org", "--allow", far)
        sock.sendall(b"x" * 5000)
        assert len(dns.receive_exactly(sock, 5000)) == 5000
        set_policy(host, "--cut", "--allow", "example.net")
        with pytest.raises(OSError):
            sock.sendall(b"x")
            assert sock.recv(1), "the end of the connection"
            raise AssertionError("it goes on")


@pytest.mark.parametrize("crash", [False, True], ids=["stop", "kill"])
def test_it_outlives_moatd(host, guest, internet, far, crash):
    ask(guest)
    host.crash() if crash else host.stop()
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert ask(guest).data == [topology.INTERNET], "what is open is told without moatd"
    assert ask(guest, "secret.example.net").rcode == "REFUSED"
    host.start()
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    assert ask(guest, "secret.example.net").rcode == "REFUSED"
    set_policy(host, "--allow", ".example.org")
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open", "the name was remembered"
    set_policy(host, "--allow", "other.example.org")
    assert refused(guest, "tcp", topology.INTERNET, 7) is True


def test_it_outlives_the_worker(host, guest, internet, far):
    ask(guest)
    former = host.call("system.status")["dns_pid"]
    kill(former)
    wait_for(lambda: host.call("system.status")["dns_pid"] not in (None, former), 5, "a new worker")
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"
    internet.dns.add("secret.example.net", "A", far)
    assert ask(guest, "secret.example.net").rcode == "REFUSED"
    internet.dns.table[(NAME, "A")] = [far]
    assert ask(guest).data == [far] and attempt(guest, "tcp", far, 7) == "open"


def test_a_lost_table_comes_back_with_what_was_open(machine, internet):
    machine.start(env={"MOAT_FAULT": "nat.owner"})
    host = machine
    guest = host.attach_guest("guest", "--allow", f"{NAME}:7")
    ask(guest)
    host.run("nft", "flush", "ruleset")
    wait_for(lambda: attempt(guest, "tcp", topology.INTERNET, 80, 0.5) == "ECONNREFUSED", 5, "the table")
    assert attempt(guest, "tcp", topology.INTERNET, 7) == "open"


def test_nothing_stays_of_a_guest_that_is_gone(host, guest, internet):
    ask(guest)
    assert "_open4" in host.run("nft", "list", "table", "inet", "moat")
    address = guest.ip_address
    guest.end()
    assert "_open" not in host.run("nft", "list", "table", "inet", "moat")
    second = host.attach_guest("second", "--allow", "other.example.org", network=f"default,ip={address}")
    assert refused(second, "tcp", topology.INTERNET, 7) is True
    assert ask(second).rcode == "REFUSED"


def test_older_kernels_renew_too(machine, internet):
    """Before Linux 6.12 an element is deleted and added to get a new time."""
    machine.configure("[policy]\ngrace = 1\n")
    machine.start(env={"MOAT_FAULT": "nat.renew"})
    guest = machine.attach_guest("guest", "--allow", f"{NAME}:7")
    internet.dns.table[(NAME, "A")] = [with_ttl([topology.INTERNET], 0)]
    for _ in range(2):
        stays(lambda: ask(guest).rcode == "NOERROR" and attempt(guest, "tcp", topology.INTERNET, 7) == "open", 2.5,
              "a name that was resolved again and again", every=0.2)
        wait_for(lambda: attempt(guest, "tcp", topology.INTERNET, 7, 0.5) == "ECONNREFUSED", 10, "the end of the opening")


# Many

@pytest.fixture
def block(world):
    """65,536 addresses outside."""
    world.router.ip("route", "add", "11.7.0.0/16", "via", topology.INTERNET)
    world.outside.ip("route", "add", "local", "11.7.0.0/16", "dev", "lo")
    yield lambda i: f"11.7.{i // 256}.{i % 256}"
    world.router.ip("route", "del", "11.7.0.0/16")
    world.outside.ip("route", "del", "local", "11.7.0.0/16", "dev", "lo")


def resolve_and_connect(guest, name, wrong):
    """As a program does, with one more try where the name service is being restarted."""
    for _ in range(4):
        try:
            answer = ask(guest, name, timeout=2)
        except (TimeoutError, OSError):
            continue
        if answer.rcode == "SERVFAIL":
            continue
        outcome = attempt(guest, "tcp", answer.data[0], 7) if answer.data else answer.rcode
        if outcome != "open":
            wrong.append((name, outcome))
        return
    wrong.append((name, "no answer"))


@pytest.mark.limit(600)
def test_resolve_then_connect_is_never_refused(host, internet, block):
    """MOAT_TEST_RESOLVES=10000 is the whole of it; every name has an address of its own."""
    count = int(os.environ.get("MOAT_TEST_RESOLVES", "1500"))
    guest = host.attach_guest("guest", "--allow", "*.many.example:7")
    for i in range(count):
        internet.dns.add(f"n{i}.many.example", "A", block(i))
    numbers, wrong, lock = iter(range(count)), [], threading.Lock()

    def work():
        while True:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            resolve_and_connect(guest, f"n{i}.many.example", wrong)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert refused(guest, "tcp", block(count), 7) is True


@pytest.mark.limit(180)
def test_restarts_do_not_refuse_what_was_resolved(host, internet, block):
    guest = host.attach_guest("guest", "--allow", "*.many.example:7")
    for i in range(4000):
        internet.dns.add(f"n{i}.many.example", "A", block(i))
    wrong, done, stop = [], [0], threading.Event()

    def work(first):
        for i in range(first, 4000, 4):
            if stop.is_set():
                return
            resolve_and_connect(guest, f"n{i}.many.example", wrong)
            done[0] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for i in range(4):
        before = done[0]
        host.restart(crash=i % 2 == 1)
        wait_for(lambda b=before: done[0] > b + 20, 20, "the next resolutions")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_random_names_against_random_rules(host, guest, internet):
    """What is answered is what the rules say, for many names and rules."""
    labels = ["a", "b", "cc", "example", "org"]
    generator = random.Random(7)

    def name(count):
        return ".".join(generator.choice(labels) for _ in range(count)) + ".zz"

    def covers(rule, asked):
        if rule.startswith("*."):
            return asked.endswith(rule[1:])
        if rule.startswith("."):
            return asked == rule[1:] or asked.endswith(rule)
        return asked == rule

    for _ in range(12):
        allow = [generator.choice(["", "*.", "."]) + name(generator.randint(1, 3)) for _ in range(generator.randint(1, 30))]
        deny = [generator.choice(["", "*.", "."]) + name(generator.randint(1, 3)) for _ in range(generator.randint(0, 5))]
        host.call("policy.set", guest="guest", allow=allow, deny=deny)
        internet.dns.questions.clear()
        expected = set()
        for _ in range(40):
            asked = name(generator.randint(1, 4))
            permitted = any(covers(r, asked) for r in allow) and not any(covers(r, asked) for r in deny)
            assert (ask(guest, asked).rcode == "REFUSED") == (not permitted), (asked, allow, deny)
            if permitted:
                expected.add(asked)
        assert {q for q, _, _ in internet.dns.questions} <= expected


# Refusals

def test_names_of_guests_are_no_domain_rules(host, guest):
    before = host.call("policy.get", guest="guest")
    error = host.error("policy.set", guest="guest", allow=["any", "web.moat.internal"])
    assert error.code == -32602 and error.data["field"] == "allow[1]" and "address" in error.message
    assert host.call("policy.get", guest="guest") == before
    host.refused("run", "--deny", "*.moat.internal", "--", "true", code=125)


def test_too_many_different_ports_are_refused(host, guest):
    rules = [f"{NAME}:{port}" for port in range(1000, 1100)]
    before, kernel = host.call("policy.get", guest="guest"), host.kernel()
    error = host.error("policy.set", guest="guest", allow=rules)
    assert error.data["reason"] == "quota" and "ports" in error.message
    assert host.call("policy.get", guest="guest") == before and not kernel.differences(host.kernel())
    host.call("policy.set", guest="guest", allow=[f"n{i}.example:{443 + i % 5}" for i in range(900)])
