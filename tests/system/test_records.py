# SPDX-License-Identifier: GPL-2.0-or-later
"""Static records of the name service: types, aliases, wildcards; kept, listed, removed."""

import ipaddress

import pytest

import dns
import topology
from netns import kill
from wait import wait_for


@pytest.fixture
def pair(host):
    web = host.attach_guest("web", network="default,alias=www")
    client = host.attach_guest("client")
    return web, client


def ask(guest, name, kind="A", **kwargs):
    return dns.ask(guest, guest.gateway, name, kind, **kwargs)


def static(host):
    return [row for row in host.call("dns.list") if row["guest"] is None]


def test_each_type(host, pair):
    web, client = pair
    host.moat("dns", "add", "six", "AAAA", "2001:db8:77::44", "2001:db8:77::45")
    host.moat("dns", "add", "four", "a", "192.0.2.44")
    host.moat("dns", "add", "here", "CNAME", "web")
    host.moat("dns", "add", "note", "TXT", "v=1 one two", "second")
    host.moat("dns", "add", "_sip._tcp.web", "SRV", "10", "5", "5060", "web", "20 5 5061 sip.example.org")
    assert ask(client, "six", "AAAA").data == ["2001:db8:77::44", "2001:db8:77::45"]
    assert ask(client, "four.moat.internal").data == ["192.0.2.44"]
    assert ask(client, "note", "TXT").data == ["second", "v=1 one two"]
    assert ask(client, "_sip._tcp.web.moat.internal", "SRV").data == ["10 5 5060 web.moat.internal", "20 5 5061 sip.example.org"]
    answer = ask(client, "here")
    assert [(r.name, r.type, r.data) for r in answer.answers] == [
        ("here", "CNAME", "web.moat.internal"), ("web.moat.internal", "A", web.ip_address)]
    assert ask(client, "here", "CNAME").data == ["web.moat.internal"]
    answer = ask(client, "note")
    assert (answer.rcode, answer.answers, answer.has_soa) == ("NOERROR", [], True)


def test_pointers_come_by_themselves(host, pair):
    _, client = pair
    host.moat("dns", "add", "printer", "192.0.2.44", "2001:db8::44")
    assert ask(client, "44.2.0.192.in-addr.arpa", "PTR").data == ["printer.moat.internal"]
    assert ask(client, ipaddress.ip_address("2001:db8::44").reverse_pointer, "PTR").data == ["printer.moat.internal"]
    host.moat("dns", "rm", "printer", "192.0.2.44")
    assert ask(client, "printer").data == [] and ask(client, "printer", "AAAA").data == ["2001:db8::44"]


def test_the_list_shows_what_was_added(host, pair):
    host.call("network.create", name="blue")
    host.moat("dns", "add", "*.Apps.moat.internal", "CNAME", "Web.moat.internal", "--network", "blue")
    host.moat("dns", "add", "note", "TXT", 'say "hello"; ünï')
    assert static(host) == [
        {"name": "*.apps", "network": "blue", "type": "CNAME", "value": "web.moat.internal", "ip": None, "guest": None},
        {"name": "note", "network": None, "type": "TXT", "value": 'say "hello"; ünï', "ip": None, "guest": None}]
    out = host.moat("dns", "ls").out
    assert "TYPE" in out and "*.apps" in out and "CNAME" in out and 'say "hello"; ünï' in out
    assert "note" in host.moat("dns", "ls", "--network", "default").out and "*.apps" not in host.moat("dns", "ls", "--network", "default").out
    # What is shown can be given back.
    for row in static(host):
        host.moat("dns", "rm", row["name"], row["type"], row["value"], *(["--network", row["network"]] if row["network"] else []))
    assert static(host) == []


def test_removal_takes_what_is_named_and_no_more(host, pair):
    _, client = pair
    host.moat("dns", "add", "many", "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")
    host.moat("dns", "add", "many", "TXT", "a", "b")
    host.moat("dns", "rm", "many", "A", "192.0.2.1", "192.0.2.2")
    assert ask(client, "many").data == ["192.0.2.3"]
    host.moat("dns", "rm", "many", "TXT")
    assert ask(client, "many", "TXT").data == [] and ask(client, "many").data == ["192.0.2.3"]
    host.moat("dns", "rm", "many")
    assert ask(client, "many").rcode == "NXDOMAIN"
    outcome = host.moat("dns", "rm", "many", check=False)
    assert outcome.code == 1 and "many" in outcome.err


def test_all_values_or_none(host, pair):
    _, client = pair
    host.moat("dns", "add", "many", "192.0.2.2")
    assert host.error("dns.add", name="many", values=["192.0.2.1", "192.0.2.2"]).reason == "exists"
    assert ask(client, "many").data == ["192.0.2.2"]
    assert len(static(host)) == 1


def test_an_alias_stands_alone(host, pair):
    host.call("network.create", name="blue")
    host.call("dns.add", name="one", type="CNAME", values=["web"])
    for params in ({"ip": "192.0.2.1"}, {"type": "CNAME", "values": ["www"]}, {"ip": "192.0.2.1", "network": "blue"}):
        error = host.error("dns.add", name="one", **params)
        assert error.reason == "exists" and "CNAME" in error.message, params
    host.call("dns.add", name="two", ip="192.0.2.1", network="blue")
    assert host.error("dns.add", name="two", type="CNAME", values=["web"]).reason == "exists"
    host.call("dns.add", name="two", type="CNAME", values=["web"], network="default")


def test_a_guest_is_more_than_an_alias(host, pair):
    """The name of a guest that comes later is the guest's for as long as it is there."""
    _, client = pair
    host.call("dns.add", name="later", type="CNAME", values=["web"])
    later = host.attach_guest("later")
    assert ask(client, "later").data == [later.ip_address]
    host.moat("detach", "later")
    assert ask(client, "later").answers[0].type == "CNAME"


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_an_alias_of_a_name_outside(pair, host, internet, tcp):
    _, client = pair
    internet.dns.add("cdn.example.org", "A", "192.0.2.200")
    host.moat("dns", "add", "far", "CNAME", "cdn.example.org")
    host.moat("dns", "add", "farther", "CNAME", "far")
    for _ in range(2):  # from upstream, then from the cache
        answer = ask(client, "farther", tcp=tcp)
        assert [(r.name, r.type, r.data) for r in answer.answers] == [
            ("farther", "CNAME", "far.moat.internal"), ("far.moat.internal", "CNAME", "cdn.example.org"),
            ("cdn.example.org", "A", "192.0.2.200")]
        assert answer.rcode == "NOERROR"
    assert internet.dns.asked("cdn.example.org") == 1
    host.moat("dns", "add", "void", "CNAME", "nothing.example.org")
    answer = ask(client, "void", tcp=tcp)
    assert (answer.rcode, answer.data) == ("NXDOMAIN", ["nothing.example.org"])


def test_libc_follows_an_alias_of_a_name_outside(host, pair, internet):
    host.moat("dns", "add", "far", "CNAME", "www.example.org")
    assert topology.INTERNET in host.moat("run", "--", "getent", "ahostsv4", "far").out


def test_an_alias_on_an_internal_network_stays_inside(host, internet):
    host.call("network.create", name="inner", internal=True)
    guest = host.attach_guest("g", network="inner")
    gateway = host.call("network.get", name="inner")["gateway"]
    host.moat("dns", "add", "far", "CNAME", "secret.example.org")
    answer = dns.ask(guest, gateway, "far")
    assert (answer.rcode, answer.data) == ("REFUSED", ["secret.example.org"])
    assert internet.dns.asked("secret.example.org") == 0


def test_an_alias_of_itself_is_a_failure(host, pair):
    _, client = pair
    host.moat("dns", "add", "a", "CNAME", "b")
    host.moat("dns", "add", "b", "CNAME", "a")
    assert ask(client, "a").rcode == "SERVFAIL"
    assert ask(client, "web").rcode == "NOERROR"


def test_wildcards(host, pair):
    web, client = pair
    host.moat("dns", "add", "*.apps", "192.0.2.9")
    host.moat("dns", "add", "own.apps", "192.0.2.10")
    host.moat("dns", "add", "*.corp.example", "CNAME", "web")
    for name in ("a.apps.moat.internal", "a.b.apps.moat.internal", "a.apps.default.moat.internal", "*.apps.moat.internal"):
        assert ask(client, name).data == ["192.0.2.9"], name
    assert ask(client, "own.apps.moat.internal").data == ["192.0.2.10"]
    assert ask(client, "x.own.apps.moat.internal").rcode == "NXDOMAIN"
    assert ask(client, "apps.moat.internal").rcode == "NOERROR" and not ask(client, "apps.moat.internal").answers
    assert ask(client, "a.apps.moat.internal", "AAAA").rcode == "NOERROR"
    assert ask(client, "git.corp.example").data == sorted(["web.moat.internal", web.ip_address])
    host.moat("dns", "rm", "*.apps")
    assert ask(client, "a.apps.moat.internal").rcode == "NXDOMAIN"


def test_records_of_one_network_are_seen_there_only(host, pair):
    _, client = pair
    host.call("network.create", name="blue")
    other = host.attach_guest("other", network="blue")
    host.moat("dns", "add", "*.apps", "TXT", "blue", "--network", "blue")
    host.moat("dns", "add", "far", "CNAME", "other", "--network", "blue")
    assert ask(other, "x.apps.moat.internal", "TXT").data == ["blue"]
    assert ask(other, "far").data == sorted(["other.moat.internal", other.ip_address])
    assert ask(client, "x.apps.moat.internal", "TXT").rcode == "NXDOMAIN" and ask(client, "far").rcode == "NXDOMAIN"
    host.call("network.remove", name="blue", force=True)
    assert static(host) == []


def test_records_outlive_restarts_and_the_workers_death(host, pair):
    web, client = pair
    host.moat("dns", "add", "*.apps", "192.0.2.9")
    host.moat("dns", "add", "here", "CNAME", "web")
    host.moat("dns", "add", "note", "TXT", "x" * 700)
    before = static(host)

    def check():
        assert ask(client, "a.apps.moat.internal").data == ["192.0.2.9"]
        assert web.ip_address in ask(client, "here").data
        assert ask(client, "note", "TXT", tcp=True).data == ["x" * 700]

    check()
    host.restart()
    assert static(host) == before
    check()
    host.restart(crash=True)
    assert static(host) == before
    check()
    first = host.call("system.status")["dns_pid"]
    kill(first, 9)
    wait_for(lambda: host.call("system.status")["dns_pid"] not in (None, first), 5, "a new worker")
    check()


def test_the_domain_may_change(machine, internet):
    """Names are kept without the domain, targets of ours too."""
    machine.configure("")
    machine.start()
    machine.call("dns.add", name="here", type="CNAME", values=["web.moat.internal"])
    machine.stop()
    machine.configure("[dns]\ndomain = lab.test\n")
    machine.start()
    web = machine.attach_guest("web")
    answer = ask(web, "here.lab.test")
    assert [(r.name, r.type, r.data) for r in answer.answers] == [
        ("here.lab.test", "CNAME", "web.lab.test"), ("web.lab.test", "A", web.ip_address)]


def test_answers_too_large_for_udp_are_truncated(host, pair):
    _, client = pair
    host.moat("dns", "add", "note", "TXT", *[f"{i} " + "x" * 500 for i in range(10)])
    assert ask(client, "note", "TXT").truncated
    assert len(ask(client, "note", "TXT", tcp=True).data) == 10


def test_the_number_of_records_is_bounded(host):
    """The limit itself (65536) is the unit tests' matter; one request has its own."""
    assert host.error("dns.add", name="many", values=[f"192.0.2.{i}" for i in range(1, 66)]).field == "values"
    host.call("dns.add", name="many", values=[f"192.0.2.{i}" for i in range(1, 65)])
    assert len(static(host)) == 64


def test_events(host):
    watcher = host.rpc().subscribe()
    host.moat("dns", "add", "printer", "192.0.2.9")
    host.moat("dns", "add", "printer", "192.0.2.10", "--network", "default")
    host.moat("dns", "rm", "printer")
    seen = [watcher.next_event() for _ in range(3)]
    assert [(event["type"], event["network"], event["detail"]) for event in seen] == [
        ("dns.added", None, "printer A 192.0.2.9"), ("dns.added", "default", "printer A 192.0.2.10"), ("dns.removed", None, "printer A 192.0.2.9")]
