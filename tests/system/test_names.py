# SPDX-License-Identifier: GPL-2.0-or-later
"""The name service: what guests and the host are answered, what goes outside and what does not."""

import socket
import struct
import threading

import pytest

import dns
import servers
import topology
from netns import kill
from wait import PATIENCE, Stopwatch, wait_for


@pytest.fixture
def pair(host):
    """Two guests of one network; the first has an alias."""
    web = host.attach_guest("web", network="default,alias=www")
    client = host.attach_guest("client")
    return web, client


def ask(guest, name, kind="A", **kwargs):
    return dns.ask(guest, guest.gateway, name, kind, **kwargs)


# Names of guests

@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", ["web", "web.moat.internal", "web.default.moat.internal", "www", "www.moat.internal",
                                  "www.default.moat.internal", "WEB", "Web.Moat.Internal"])
def test_a_guest_is_found_by_each_of_its_names(pair, name, tcp):
    web, client = pair
    answer = ask(client, name, tcp=tcp)
    assert (answer.rcode, answer.data) == ("NOERROR", [web.ip_address])
    assert answer.authoritative and answer.recursion_available
    assert answer.question[0] == name, "the question is not given back as it came"


def test_a_guest_finds_itself(pair):
    web, _ = pair
    assert ask(web, "web").data == [web.ip_address]


@pytest.mark.parametrize("name", ["nobody", "nobody.moat.internal", "nobody.default.moat.internal", "web.nonet.moat.internal",
                                  "a.web.moat.internal"])
@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "MX"])
def test_unknown_names_below_the_domain_do_not_exist(pair, internet, name, kind):
    _, client = pair
    answer = ask(client, name, kind)
    assert (answer.rcode, answer.answers, answer.has_soa) == ("NXDOMAIN", [], True)
    assert internet.dns.asked(name) == 0, "a name of our own was asked of the internet"


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "MX", "SRV", "PTR"])
def test_a_name_without_that_type_exists_all_the_same(pair, kind):
    _, client = pair
    for name in ("web", "web.moat.internal"):
        answer = ask(client, name, kind)
        assert (answer.rcode, answer.answers, answer.has_soa) == ("NOERROR", [], True), f"{name} {kind}"


def test_single_labels_never_leave(pair, internet):
    _, client = pair
    internet.dns.add("printer", "A", "192.0.2.1")
    answer = ask(client, "printer")
    assert answer.rcode == "NXDOMAIN" and answer.has_soa
    assert internet.dns.asked("printer") == 0


def test_the_domain_itself_exists(pair):
    _, client = pair
    for name in ("moat.internal", "default.moat.internal"):
        answer = ask(client, name)
        assert (answer.rcode, answer.has_soa) == ("NOERROR", True), name


def test_ptr_of_guests_addresses(pair):
    web, client = pair
    reverse = ".".join(reversed(web.ip_address.split("."))) + ".in-addr.arpa"
    answer = ask(client, reverse, "PTR")
    assert answer.rcode == "NOERROR"
    assert answer.data[0].startswith("web.") and answer.data[0].endswith("moat.internal")


def test_ptr_of_an_address_that_nobody_has(pair, internet):
    _, client = pair
    answer = ask(client, "9.9.88.10.in-addr.arpa", "PTR")
    assert answer.rcode == "NXDOMAIN" and answer.has_soa
    assert internet.dns.asked("9.9.88.10.in-addr.arpa") == 0, "an address of our own was asked of the internet"


def test_ptr_of_the_outside_is_forwarded(pair, internet):
    _, client = pair
    internet.dns.add("2.100.51.198.in-addr.arpa", "PTR", "www.example.org")
    assert ask(client, "2.100.51.198.in-addr.arpa", "PTR").data == ["www.example.org"]


def test_a_guest_on_two_networks_is_answered_for_both(host):
    host.call("network.create", name="blue")
    host.attach_guest("red-web", network="default")
    host.attach_guest("blue-web", network="blue")
    middle = host.attach_guest("middle")
    host.moat("attach", "middle", "--network", "blue")
    both = {e["network"]: e for e in middle.refresh().info["endpoints"]}
    for endpoint in both.values():
        for name in ("red-web", "blue-web"):
            assert dns.ask(middle, endpoint["gateway"], name).rcode == "NOERROR", f"{name} at {endpoint['gateway']}"
    only_red = host.attach_guest("only-red")
    assert ask(only_red, "blue-web").rcode == "NXDOMAIN", "a guest learns of a network that it is not on"
    assert ask(only_red, "blue-web.blue.moat.internal").rcode == "NXDOMAIN"
    assert ask(only_red, "middle").data == [both["default"]["ip"]]
    blue_reverse = ".".join(reversed(both["blue"]["ip"].split("."))) + ".in-addr.arpa"
    assert ask(only_red, blue_reverse, "PTR").rcode == "NXDOMAIN"


def test_the_host_is_answered_for_all_networks(host):
    host.call("network.create", name="blue")
    one = host.attach_guest("one")
    two = host.attach_guest("two", network="blue")
    assert dns.ask(host, "10.88.0.1", "one").data == [one.ip_address]
    assert dns.ask(host, "10.88.0.1", "two").data == [two.ip_address]
    assert dns.ask(host, "10.88.0.1", "two.blue.moat.internal").data == [two.ip_address]


def test_who_is_not_on_the_network_gets_no_answer(host, lan, pair, bridge_nf):
    web, _ = pair
    lan.ip("route", "add", "10.88.0.0/16", "via", topology.HOST)
    try:
        for server in ("10.88.0.1", topology.HOST):
            with pytest.raises(OSError):
                dns.ask(lan, server, "web", timeout=0.4)
            assert servers.unreachable(lan, "tcp", server, 53, 0.4)
    finally:
        lan.ip("route", "del", "10.88.0.0/16")
    blue = host.call("network.create", name="blue")
    stranger = host.attach_guest("stranger", network="blue")
    with pytest.raises(OSError):
        dns.ask(stranger, web.gateway, "web", timeout=0.4)
    assert blue["dns"]


def test_names_come_and_go_with_their_guests(host, pair):
    _, client = pair
    assert ask(client, "late").rcode == "NXDOMAIN"
    late = host.attach_guest("late", network="default,alias=delayed")
    assert ask(client, "late").data == [late.ip_address], "the name is not there when attach has answered"
    assert ask(client, "delayed").data == [late.ip_address]
    host.moat("detach", "late")
    assert ask(client, "late").rcode == "NXDOMAIN", "the name outlives its guest"
    assert ask(client, "delayed").rcode == "NXDOMAIN"


def test_one_alias_for_two_guests_answers_both(host, pair):
    _, client = pair
    one = host.attach_guest("one", network="default,alias=pool")
    two = host.attach_guest("two", network="default,alias=pool")
    assert ask(client, "pool").data == sorted([one.ip_address, two.ip_address])
    host.moat("detach", "one")
    assert ask(client, "pool").data == [two.ip_address]


def test_answers_have_a_short_life(pair):
    _, client = pair
    assert all(record.ttl <= 60 for record in ask(client, "web").answers)


def test_libc_of_a_guest_resolves_its_peers(host, pair):
    web, _ = pair
    outcome = host.moat("run", "--", "getent", "ahostsv4", "web")
    assert web.ip_address in outcome.out
    outcome = host.moat("run", "--", "getent", "ahostsv4", "web.default.moat.internal")
    assert web.ip_address in outcome.out
    outcome = host.moat("run", "--", "getent", "hosts", web.ip_address)
    assert "web" in outcome.out
    outcome = host.moat("run", "--", "getent", "ahosts", "nobody", check=False)
    assert outcome.code == 2, str(outcome)


# Static names

def test_static_names(host, pair):
    _, client = pair
    host.moat("dns", "add", "printer", "192.168.77.44")
    assert ask(client, "printer").data == ["192.168.77.44"]
    assert ask(client, "printer.moat.internal").data == ["192.168.77.44"]
    assert ask(client, "printer", "AAAA").rcode == "NOERROR"
    listing = host.moat("dns", "ls").out
    assert "printer" in listing and "192.168.77.44" in listing and "web" in listing
    assert host.moat("dns", "ls", "--json").json == host.call("dns.list")
    host.moat("dns", "rm", "printer")
    assert ask(client, "printer").rcode == "NXDOMAIN"
    assert host.error("dns.remove", name="printer").reason == "not_found"


def test_static_names_of_one_network(host, pair):
    _, client = pair
    host.call("network.create", name="blue")
    other = host.attach_guest("other", network="blue")
    host.moat("dns", "add", "printer", "192.168.77.44", "--network", "blue")
    assert ask(other, "printer").data == ["192.168.77.44"]
    assert ask(client, "printer").rcode == "NXDOMAIN"
    assert "printer" in host.moat("dns", "ls", "--network", "blue").out
    assert "printer" not in host.moat("dns", "ls", "--network", "default").out
    assert host.error("dns.remove", name="printer").reason == "not_found"
    host.moat("dns", "rm", "printer", "--network", "blue")
    assert ask(other, "printer").rcode == "NXDOMAIN"


def test_static_name_with_several_addresses(host, pair):
    _, client = pair
    for address in ("192.168.77.44", "192.168.77.45", "2001:db8:77::44"):
        host.call("dns.add", name="printer", ip=address)
    assert ask(client, "printer").data == ["192.168.77.44", "192.168.77.45"]
    assert ask(client, "printer", "AAAA").data == ["2001:db8:77::44"]
    assert host.error("dns.add", name="printer", ip="192.168.77.44").reason == "exists"


def test_static_names_outlive_a_restart(host, pair):
    _, client = pair
    host.call("dns.add", name="printer", ip="192.168.77.44")
    host.restart()
    assert ask(client, "printer").data == ["192.168.77.44"]
    assert ask(client, "web").data


# The outside

@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_everything_else_is_forwarded(pair, internet, tcp):
    _, client = pair
    answer = ask(client, "www.example.org", tcp=tcp)
    assert (answer.rcode, answer.data) == ("NOERROR", [topology.INTERNET])
    assert ask(client, "www.example.org", "AAAA", tcp=tcp).data == [topology.INTERNET6]
    assert ask(client, "no.example.org", tcp=tcp).rcode == "NXDOMAIN"
    assert ask(client, "www.example.org", "TXT", tcp=tcp).rcode == "NOERROR"


def test_question_id_and_case_come_back(pair, internet):
    _, client = pair
    internet.dns.add("case.example.org", "A", "192.0.2.7")
    request = dns.query_bytes("CaSe.eXample.ORG", ident=0x1234)
    answer = dns.Answer(dns.exchange_udp(client, client.gateway, request))
    assert answer.id == 0x1234 and answer.question[0] == "CaSe.eXample.ORG" and answer.data == ["192.0.2.7"]


def test_truncated_answers_are_asked_again_by_tcp(pair, internet):
    _, client = pair
    many = [f"192.0.2.{i}" for i in range(1, 101)]
    internet.dns.add("many.example.org", "A", *many)
    over_udp = ask(client, "many.example.org")
    assert over_udp.truncated or sorted(over_udp.data) == sorted(many)
    assert over_udp.size <= 512, "a client without EDNS was sent more than 512 bytes"
    assert ask(client, "many.example.org", tcp=True).data == sorted(many)


def test_answers_are_cached(pair, internet):
    _, client = pair
    for _ in range(5):
        assert ask(client, "www.example.org").data == [topology.INTERNET]
    assert internet.dns.asked("www.example.org") == 1


def test_a_dead_first_resolver_costs_little(host, pair, internet):
    """The client's own patience is five seconds; the second resolver has to come in long before."""
    _, client = pair
    host.write("/etc/resolv.conf", f"nameserver 198.51.100.99\nnameserver {topology.INTERNET_DNS}\n")
    try:
        wait_for(lambda: "198.51.100.99" in str(host.call("system.status")), 3, "the new resolvers to be seen")
        with Stopwatch() as watch:
            assert ask(client, "www.example.org", timeout=4).data == [topology.INTERNET]
        assert watch.ms < 2500 * PATIENCE, f"{watch.ms:.0f} ms"
    finally:
        host.write("/etc/resolv.conf", f"nameserver {topology.INTERNET_DNS}\nsearch corp.example\n")


def test_no_resolver_at_all_is_a_server_failure(host, pair):
    _, client = pair
    host.write("/etc/resolv.conf", "# none\n")
    try:
        wait_for(lambda: topology.INTERNET_DNS not in str(host.call("system.status")), 3, "the change to be seen")
        assert ask(client, "other.example.org").rcode == "SERVFAIL"
        assert ask(client, "web").rcode == "NOERROR"
    finally:
        host.write("/etc/resolv.conf", f"nameserver {topology.INTERNET_DNS}\nsearch corp.example\n")


def test_resolvers_that_do_not_answer_are_a_server_failure(pair, internet):
    _, client = pair
    internet.dns.add("silent.example.org", "A", lambda request, tcp: None)
    assert ask(client, "silent.example.org", timeout=15).rcode == "SERVFAIL"


def test_forged_answers_are_not_taken(pair, internet):
    """An answer with another id or another question is not ours."""
    _, client = pair

    def forged(request, tcp):
        wrong = struct.pack("!H", struct.unpack_from("!H", request)[0] ^ 1) + request[2:]
        return dns.DnsServer.reply(wrong, ["192.0.2.66"], over_tcp=tcp)

    internet.dns.add("forged.example.org", "A", forged)
    try:
        answer = ask(client, "forged.example.org", timeout=15)
        assert answer.data != ["192.0.2.66"]
    except TimeoutError:
        pass


def test_an_internal_network_asks_nobody(host, internet):
    host.call("network.create", name="inner", internal=True)
    guest = host.attach_guest("g", network="inner")
    peer = host.attach_guest("peer", network="inner")
    for tcp in (False, True):
        answer = dns.ask(guest, guest.endpoint()["gateway"] or host.call("network.get", name="inner")["gateway"],
                         "secret.example.org", tcp=tcp)
        assert answer.rcode in ("NXDOMAIN", "REFUSED", "SERVFAIL") and not answer.answers
    gateway = host.call("network.get", name="inner")["gateway"]
    assert dns.ask(guest, gateway, "peer").data == [peer.ip_address]
    assert internet.dns.asked("secret.example.org") == 0, "a question of an internal network left the host"


def test_dns_of_one_guest(host, world, internet):
    second = dns.DnsServer(world.outside, topology.INTERNET)
    try:
        second.add("only.here", "A", "192.0.2.55")
        guest = host.run_guest("g", "--dns", topology.INTERNET)
        assert "192.0.2.55" in guest.exec("getent", "ahostsv4", "only.here").out
        host.attach_guest("peer")
        assert guest.exec("getent", "ahostsv4", "peer").out, "with --dns the guest does not find its peers"
    finally:
        second.close()


def counters(host):
    return host.call("system.status")["dns"]


def test_flush(host, pair, internet):
    _, client = pair
    for name in ("a.example.org", "b.example.org", "www.example.net"):
        internet.dns.add(name, "A", "192.0.2.1")
        assert ask(client, name).data == ["192.0.2.1"]
        internet.dns.add(name, "A", "192.0.2.2")
        assert ask(client, name).data == ["192.0.2.1"], "not cached"
    host.moat("dns", "flush", "Example.org")
    assert ask(client, "a.example.org").data == ask(client, "b.example.org").data == ["192.0.2.2"]
    assert ask(client, "www.example.net").data == ["192.0.2.1"], "more than what was named is forgotten"
    host.moat("dns", "flush")
    assert ask(client, "www.example.net").data == ["192.0.2.2"]
    assert host.call("dns.flush", name="nothing.example") == {}
    assert ask(client, "web").data, "our own names went too"


def test_status_shows_the_hit_rate(host, pair, internet):
    _, client = pair
    for _ in range(4):
        assert ask(client, "www.example.org").data
    ask(client, "web")
    ask(client, "nobody")
    wanted = {"queries": 6, "local": 2, "cached": 3, "missed": 1, "forwarded": 1, "failed": 0, "shed": 0, "cache_entries": 1}
    wait_for(lambda: wanted.items() <= counters(host).items(), 5, "the worker's report")
    out = host.moat("status").out
    assert "hit rate 75 %" in out and "6 queries" in out, out
    host.moat("dns", "flush")
    wait_for(lambda: counters(host)["cache_entries"] == 0, 5, "the report of an empty cache")


def configured(machine, text):
    machine.configure("[dns]\n" + text)
    machine.start()
    return machine.attach_guest("g")


def test_stale_answers_when_the_outside_is_gone(machine, internet):
    guest = configured(machine, "stale = 86400\n")
    internet.dns.add("old.example.org", "A", lambda request, tcp: dns.DnsServer.reply(request, ["192.0.2.9"], ttl=1, over_tcp=tcp))
    assert [r.ttl for r in ask(guest, "old.example.org").answers] == [1]

    def servfail(request, tcp):
        return dns.DnsServer.reply(request, [], rcode=dns.SERVFAIL, over_tcp=tcp)

    internet.dns.add("old.example.org", "A", servfail)
    wait_for(lambda: [r.ttl for r in ask(guest, "old.example.org").answers] == [30], 5, "the expired answer")
    assert ask(guest, "old.example.org").data == ["192.0.2.9"]
    internet.dns.add("new.example.org", "A", servfail)
    assert ask(guest, "new.example.org").rcode == "SERVFAIL"
    wait_for(lambda: counters(machine)["stale"] >= 1, 5, "the report")


def test_rebind_guard(machine, internet):
    guest = configured(machine, f"rebind_guard = yes\nforward = corp.example={topology.INTERNET_DNS}\n")
    for name, address in (("evil.example.org", "192.168.1.1"), ("own.example.org", guest.ip_address), ("good.example.org", "192.0.3.1"),
                          ("git.corp.example", "10.1.2.3"), ("evil6.example.org", "fd00::1")):
        internet.dns.add(name, "AAAA" if ":" in address else "A", address)
    assert ask(guest, "evil.example.org").rcode == "REFUSED" and ask(guest, "evil.example.org").data == []
    assert ask(guest, "own.example.org").rcode == "REFUSED"
    assert ask(guest, "evil6.example.org", "AAAA").rcode == "REFUSED"
    assert ask(guest, "good.example.org").data == ["192.0.3.1"]
    assert ask(guest, "git.corp.example").data == ["10.1.2.3"], "a server of `forward` is not trusted with its own addresses"
    assert ask(guest, "g").data == [guest.ip_address]


def test_private_addresses_pass_without_the_guard(pair, internet):
    _, client = pair
    internet.dns.add("git.example.org", "A", "192.168.1.1")
    assert ask(client, "git.example.org").data == ["192.168.1.1"]


def test_a_guests_rate_is_its_own(machine, internet):
    guest = configured(machine, "rate = 20\n")
    other = machine.attach_guest("other")
    with guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((guest.gateway, 53))
        for i in range(500):
            sock.send(dns.query_bytes("g", ident=i))
        for _ in range(10):
            assert ask(other, "g").data == [guest.ip_address]
        wait_for(lambda: counters(machine)["shed"] > 300, 5, "the report")
    wait_for(lambda: answered(guest), 5, "an answer when the guest has become quiet")
    assert ask(guest, "g", tcp=True).rcode in ("NOERROR", "REFUSED")


def answered(guest):
    try:
        return ask(guest, "g", timeout=0.5).data == [guest.ip_address]
    except TimeoutError:
        return False


def test_in_flight_questions_of_one_guest_are_bounded(machine, internet):
    """A further question ends the guest's oldest, and nobody else's."""
    guest = configured(machine, "in_flight = 10\n")
    other = machine.attach_guest("other")
    silent = [f"n{i}.example.org" for i in range(30)]
    for name in silent + ["theirs.example.org"]:
        internet.dns.add(name, "A", lambda request, tcp: None)
    with other.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs, guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for one, names in ((theirs, ["theirs.example.org"]), (sock, silent)):
            one.settimeout(3 * PATIENCE)
            one.connect((guest.gateway, 53))
            for i, name in enumerate(names):
                one.send(dns.query_bytes(name, ident=i))
        shed = [dns.Answer(sock.recv(1000)) for _ in range(20)]
        assert sorted(answer.id for answer in shed) == list(range(20)) and {answer.rcode for answer in shed} == {"SERVFAIL"}
        wait_for(lambda: counters(machine)["shed"] == 20, 5, "the report")
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1000)


def test_tcp_connections_of_one_guest_are_bounded(machine, internet):
    guest = configured(machine, "connections = 3\n")
    other = machine.attach_guest("other")
    theirs = servers.connect(other, other.gateway, 53)
    mine = [servers.connect(guest, guest.gateway, 53) for _ in range(5)]
    try:
        for sock in mine[:2]:
            assert sock.recv(1) == b"", "the oldest connections stay"
        for sock in mine[2:] + [theirs]:
            request = dns.query_bytes("g")
            sock.sendall(struct.pack("!H", len(request)) + request)
            assert dns.Answer(dns.receive_tcp(sock)).data == [guest.ip_address]
    finally:
        for sock in mine + [theirs]:
            sock.close()


# The server as such

def test_worker_runs_without_privilege(host, pair):
    pid = host.call("system.status")["dns_pid"]
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split()
    for caps in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
        assert int(status[caps], 16) == 0, f"{caps} of the DNS worker: {status[caps].strip()}"
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
    assert pid != host.daemon.pid


def test_several_questions_on_one_tcp_connection(pair):
    web, client = pair
    with servers.connect(client, client.gateway, 53) as sock:
        requests = [dns.query_bytes(name, ident=i) for i, name in enumerate(["web", "nobody", "client", "www"])]
        sock.sendall(b"".join(struct.pack("!H", len(r)) + r for r in requests))
        answers = {}
        for _ in requests:
            answer = dns.Answer(dns.receive_tcp(sock))
            answers[answer.id] = answer
        assert answers[0].data == [web.ip_address] and answers[1].rcode == "NXDOMAIN"
        assert answers[2].data == [client.ip_address] and answers[3].data == [web.ip_address]


@pytest.mark.parametrize("junk", [b"", b"\0", b"\0" * 11, b"\xff" * 12, b"\0" * 12, b"\xff" * 512,
                                  dns.query_bytes("web")[:-1], dns.query_bytes("web")[:13],
                                  struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
                                  struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x40abc\0\0\1\0\1",
                                  struct.pack("!6H", 7, 0x0100, 0xffff, 0xffff, 0xffff, 0xffff) + b"\3web\0\0\1\0\1",
                                  struct.pack("!6H", 7, 0x8180, 1, 0, 0, 0) + b"\3web\0\0\1\0\1"],
                         ids=["empty", "one-byte", "short-header", "ones", "no-question", "ones-512", "cut", "cut-name",
                              "pointer-to-itself", "bad-label", "counts", "a-response"])
def test_junk_harms_nobody(pair, host, junk):
    web, client = pair
    before = host.call("system.status")["dns_pid"]
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(junk, (client.gateway, 53))
    with servers.connect(client, client.gateway, 53) as sock:
        sock.sendall(struct.pack("!H", len(junk)) + junk)
    assert ask(client, "web").data == [web.ip_address]
    assert ask(client, "web", tcp=True).data == [web.ip_address]
    assert host.call("system.status")["dns_pid"] == before, "junk ended the DNS worker"


def test_a_response_is_never_answered(pair):
    _, client = pair
    message = struct.pack("!6H", 7, 0x8180, 1, 0, 0, 0) + b"\3web\0\0\1\0\1"
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect((client.gateway, 53))
        sock.send(message)
        with pytest.raises(TimeoutError):
            sock.recv(1000)


def test_other_opcodes_are_not_implemented(pair):
    _, client = pair
    request = struct.pack("!6H", 9, 0x2800, 1, 0, 0, 0) + dns.encode_name("web") + struct.pack("!2H", 6, 1)
    assert dns.Answer(dns.exchange_udp(client, client.gateway, request)).rcode in ("NOTIMP", "REFUSED")


def test_edns_is_understood(pair, internet):
    _, client = pair
    many = [f"192.0.2.{i}" for i in range(1, 51)]
    internet.dns.add("fifty.example.org", "A", *many)
    opt = b"\0" + struct.pack("!2HIH", 41, 4096, 0, 0)
    query = dns.query_bytes("web")
    request = query[:10] + struct.pack("!H", 1) + query[12:] + opt
    assert dns.Answer(dns.exchange_udp(client, client.gateway, request)).rcode == "NOERROR"


def test_port_53_of_somebody_else_is_left_alone(machine, internet):
    """A resolver on the host's own address is not in the way; one on every address is named."""
    with servers.bound(machine, socket.SOCK_DGRAM, topology.HOST, 53), servers.bound(machine, socket.SOCK_DGRAM, "127.0.0.53", 53):
        machine.start()
        guest = machine.attach_guest("g")
        assert ask(guest, "g").data == [guest.ip_address]


def test_the_domain_is_configurable(machine, internet):
    machine.configure("[dns]\ndomain = lab.test\n")
    machine.start()
    guest = machine.attach_guest("g")
    assert ask(guest, "g.lab.test").data == [guest.ip_address]
    assert ask(guest, "g.moat.internal").rcode == "NXDOMAIN"
    assert "lab.test" in machine.moat("run", "--", "cat", "/etc/resolv.conf").out


# The query log

def queries(host, since=0):
    return host.call("dns.log", since=since)


def test_the_query_log_is_off_until_asked_for(host, pair, internet):
    web, client = pair
    assert ask(client, "web").data
    first = queries(host)
    assert first["began"] and first["queries"] == [] and first["lost"] == 0
    ask(client, "Web.moat.internal", "AAAA")
    ask(client, "www.example.org")
    ask(client, "www.example.org", tcp=True)
    ask(web, "nobody", 65280)
    dns.ask(host, client.gateway, "web")
    wait_for(lambda: len(queries(host)["queries"]) == 5, 5, "the worker's report")
    log = queries(host)
    assert not log["began"] and log["next"] == 6
    assert [(q["guest"], q["network"], q["name"], q["type"], q["rcode"], q["source"]) for q in log["queries"]] == [
        ("client", "default", "Web.moat.internal", "AAAA", "NOERROR", "local"),
        ("client", "default", "www.example.org", "A", "NOERROR", "upstream"),
        ("client", "default", "www.example.org", "A", "NOERROR", "cache"),
        ("web", "default", "nobody", "TYPE65280", "NXDOMAIN", "local"),
        (None, "default", "web", "A", "NOERROR", "local")]
    assert [q["number"] for q in log["queries"]] == [1, 2, 3, 4, 5]
    assert log["queries"][1]["duration_us"] > 0
    assert queries(host, since=4)["queries"] == log["queries"][3:]
    out = host.moat("dns", "log").out.splitlines()
    assert len(out) == 5 and "client www.example.org A NOERROR upstream" in out[1] and out[1].endswith(" ms"), out


def test_the_query_log_is_followed(host, pair):
    _, client = pair
    queries(host)
    follower = host.spawn("dns", "log", "--follow")
    for name in ("web", "nobody"):
        ask(client, name)
        words = follower.process.stdout.readline().split()
        assert words[1:6] == ["client", name, "A", "NOERROR" if name == "web" else "NXDOMAIN", "local"] and words[7] == "ms", words
    follower.close()


def test_failures_and_aliases_in_the_query_log(host, pair, internet):
    _, client = pair
    internet.dns.add("bad.example.org", "A", lambda request, tcp: dns.DnsServer.reply(request, [], rcode=dns.SERVFAIL, over_tcp=tcp))
    host.call("dns.add", name="far", type="CNAME", values=["www.example.org"])
    queries(host)
    ask(client, "bad.example.org")
    ask(client, "far")
    wait_for(lambda: len(queries(host)["queries"]) == 2, 5, "the worker's report")
    assert [(q["name"], q["rcode"], q["source"]) for q in queries(host)["queries"]] == [
        ("bad.example.org", "SERVFAIL", "upstream"), ("far", "NOERROR", "upstream")]


def test_the_query_log_outlives_the_worker(host, pair):
    _, client = pair
    queries(host)
    first = host.call("system.status")["dns_pid"]
    kill(first, 9)
    wait_for(lambda: host.call("system.status")["dns_pid"] not in (None, first), 5, "a new worker")
    ask(client, "web")
    wait_for(lambda: len(queries(host)["queries"]) == 1, 5, "the worker's report")


def test_the_query_log_of_a_flood_is_bounded(host, pair):
    _, client = pair
    queries(host)
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((client.gateway, 53))

        def flooded():
            for i in range(1000):
                sock.send(dns.query_bytes("web", ident=i))
            return queries(host, since=2 ** 50)["next"] > 5000

        wait_for(flooded, 20, "the worker's report")
    log = queries(host)
    assert len(log["queries"]) == 1000
    numbers = [q["number"] for q in log["queries"]]
    assert numbers == sorted(numbers) and log["next"] > numbers[-1] and numbers[0] >= 1
    rest = queries(host, since=log["next"])
    assert len(rest["queries"]) + rest["lost"] == rest["next"] - log["next"], "queries are neither there nor counted as missing"


@pytest.mark.parametrize("name", ["host", "localhost"])
def test_names_that_are_always_answered_otherwise(host, name):
    """Nobody could ever reach a guest by them."""
    space = host.guest_space()
    request = {"kind": "netns", "pid": space.pid}
    assert host.error("guest.attach", name=name, networks=[{"name": "default"}], **request).field == "name"
    for alias in (name, name.upper()):
        error = host.error("guest.attach", name="web", networks=[{"name": "default", "aliases": ["a", alias]}], **request)
        assert error.field == "networks[0].aliases[1]" and "take another name" in error.message
    outcome = host.moat("run", "-n", name, "--", "true", check=False)
    assert outcome.code == 125 and name in outcome.err and "take another name" in outcome.err
    host.moat("net", "create", name)  # a network is never asked for alone
    guest = host.attach_guest("web", network=f"{name},alias={name}s")
    assert dns.ask(guest, guest.gateway, f"web.{name}.moat.internal").data == [guest.ip_address]
