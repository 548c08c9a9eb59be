# SPDX-License-Identifier: GPL-2.0-or-later
"""moat.conf, the log, and the service manager's side of moatd."""

import ipaddress
import os
import re
import stat

import pytest

import dns
import servers
import topology
from wait import wait_for


@pytest.fixture
def configured(machine, internet):
    """Starts moatd with a configuration."""

    def start(text, **kwargs):
        machine.configure(text)
        machine.start(**kwargs)
        return machine

    return start


def test_an_empty_file_is_fine(configured):
    assert configured("# nothing\n\n").moat("net", "ls", "-q").out == "default\n"


def test_publish_address(configured, lan):
    """The default bind address: a port is on the lan only when somebody says so."""
    host = configured("[network]\npublish_address = 127.0.0.1\n")
    guest = host.attach_guest("web", "-p", "8080:80", "-p", f"{topology.HOST}:8081:80")
    with servers.TcpServer(guest, 80, name="web"):
        assert servers.tcp_greeting(host, "127.0.0.1", 8080)[0] == "web"
        assert servers.unreachable(lan, "tcp", topology.HOST, 8080)
        assert servers.tcp_greeting(lan, topology.HOST, 8081)[0] == "web"


def test_default_subnet(configured):
    host = configured("[network]\ndefault_subnet = 10.77.0.0/20\n")
    network = host.call("network.get", name="default")
    assert (network["subnet"], network["gateway"]) == ("10.77.0.0/20", "10.77.0.1")


def doctor(host, name):
    return next(check for check in host.call("system.doctor") if check["name"] == name)


def test_another_default_subnet(configured):
    """Taken over at a start without guests on it; else the log and doctor say what to do."""
    host = configured("")
    guest = host.attach_guest("web")
    host.moat("dns", "add", "printer", "192.0.2.9", "--network", "default")
    identifier = host.call("network.get", name="default")["id"]
    host.configure("[network]\ndefault_subnet = 10.77.0.0/20\n")
    host.restart()
    assert host.call("network.get", name="default")["subnet"] == "10.88.0.0/16"
    assert "web" in host.daemon.log() and "stays" in host.daemon.log()
    found = doctor(host, "default network")
    assert not found["ok"] and "10.77.0.0/20" in found["detail"] and "start moatd again" in found["remedy"]
    host.moat("detach", "web")
    host.restart()
    network = host.call("network.get", name="default")
    assert (network["subnet"], network["gateway"], network["id"]) == ("10.77.0.0/20", "10.77.0.1", identifier)
    assert host.addresses("moat0") == ["10.77.0.1"]
    assert doctor(host, "default network")["ok"]
    again = host.attach_guest("web")
    assert again.ip_address == "10.77.0.2" and again.ping(topology.INTERNET)
    assert dns.ask(again, "10.77.0.1", "web").data == ["10.77.0.2"]
    assert dns.ask(again, "10.77.0.1", "printer").data == ["192.0.2.9"]
    assert guest.ip_address not in str(host.call("dns.list"))


def test_the_default_network_gets_out_of_the_way(configured):
    """Somebody else came with its subnet: with no guest on it, the next start moves it."""
    host = configured("")
    host.ip("link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
    host.ip("address", "add", "10.88.5.1/24", "dev", "vpn0")
    host.ip("link", "set", "vpn0", "up")
    found = doctor(host, "subnets")
    assert not found["ok"] and "start moatd again" in found["remedy"]
    host.restart()
    subnet = ipaddress.ip_network(host.call("network.get", name="default")["subnet"])
    assert not subnet.overlaps(ipaddress.ip_network("10.88.0.0/16"))
    assert doctor(host, "subnets")["ok"] and doctor(host, "default network")["ok"]
    assert host.attach_guest("web").ping(topology.INTERNET)
    host.restart()
    assert host.call("network.get", name="default")["subnet"] == str(subnet), "it does not move back and forth"
    host.ip("link", "del", "vpn0")


def test_a_default_subnet_that_the_host_uses(configured):
    host = configured("")
    host.ip("link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
    host.ip("address", "add", "10.77.5.1/24", "dev", "vpn0")
    host.configure("[network]\ndefault_subnet = 10.77.0.0/16\n")
    host.restart()
    assert host.call("network.get", name="default")["subnet"] == "10.88.0.0/16"
    assert "the host uses 10.77.0.0/16" in host.daemon.log() and not doctor(host, "default network")["ok"]
    host.ip("link", "del", "vpn0")


def test_pools_and_subnet_size(configured):
    host = configured("[network]\npools = 10.60.0.0/23, 172.29.0.0/24\nsubnet_size = 24\n")
    subnets = [host.call("network.create", name=f"n{i}")["subnet"] for i in range(3)]
    assert subnets == ["10.60.0.0/24", "10.60.1.0/24", "172.29.0.0/24"]
    assert host.error("network.create", name="n3").reason == "no_free_subnet"


def test_bridge_ports(configured):
    """From a number on, guests get routed ports; nobody notices."""
    host = configured("[network]\nbridge_ports = 2\n")
    guests = [host.attach_guest(f"g{i}") for i in range(4)]
    links = host.links()
    assert ["master" in links[g.endpoint()["host_interface"]] for g in guests] == [True, True, False, False]
    for one in guests:
        assert one.ping(topology.INTERNET)
        for other in guests:
            assert one.ping(other.ip_address), f"{one.name} does not reach {other.name}"
    # A guest whose rules end goes back to the bridge only where that has room.
    for name in ("g3", "g0"):
        host.moat("policy", "set", name, "--deny", "192.0.2.1")
        host.moat("policy", "set", name)
    links = host.links()
    assert ["master" in links[g.endpoint()["host_interface"]] for g in guests] == [True, True, False, False]


def test_upstreams(configured, world):
    second = dns.DnsServer(world.outside, topology.INTERNET)
    try:
        second.add("only.here", "A", "192.0.2.55")
        host = configured(f"[dns]\nupstreams = {topology.INTERNET}\n")
        guest = host.attach_guest("g")
        assert dns.ask(guest, guest.gateway, "only.here").data == ["192.0.2.55"]
    finally:
        second.close()


def test_forward(configured, world, internet):
    """Names below a suffix go to servers of their own, whoever asks: not to the host's, nor to those of --dns."""
    second = dns.DnsServer(world.outside, topology.INTERNET)
    try:
        second.add("git.corp.example", "A", "192.0.2.55")
        internet.dns.add("git.lab.corp.example", "A", "192.0.2.56")
        host = configured(f"[dns]\nforward = corp.example={topology.INTERNET}\nforward = lab.corp.example={topology.INTERNET_DNS}\n")
        guest = host.attach_guest("g")
        assert dns.ask(guest, guest.gateway, "git.corp.example").data == ["192.0.2.55"]
        assert dns.ask(guest, guest.gateway, "git.lab.corp.example").data == ["192.0.2.56"]
        assert dns.ask(guest, guest.gateway, "www.example.org").data == [topology.INTERNET]
        assert internet.dns.asked("git.corp.example") == 0 and second.asked("git.lab.corp.example") == 0
        own = host.run_guest("own", "--dns", topology.INTERNET_DNS)
        assert dns.ask(own, own.gateway, "git.corp.example").data == ["192.0.2.55"]
        host.call("dns.add", name="here", type="CNAME", values=["git.corp.example"])
        assert "192.0.2.55" in dns.ask(guest, guest.gateway, "here").data, "an alias does not take its target's way"
        host.call("network.create", name="inner", internal=True)
        inner = host.attach_guest("inner", network="inner")
        assert dns.ask(inner, host.call("network.get", name="inner")["gateway"], "git.corp.example").rcode == "REFUSED"
        wanted = [f"corp.example={topology.INTERNET}", f"lab.corp.example={topology.INTERNET_DNS}"]
        assert host.call("system.status")["forward"] == wanted
        assert all(word in host.moat("status").out for word in wanted)
        host.restart(crash=True)
        assert dns.ask(guest, guest.gateway, "git.corp.example").data == ["192.0.2.55"]
    finally:
        second.close()


def test_forward_to_a_gateway_of_ours_is_no_circle(configured):
    host = configured("")
    gateway = host.call("network.get", name="default")["gateway"]
    host.stop()
    host.configure(f"[dns]\nforward = corp.example={gateway}\n")
    host.start()
    guest = host.attach_guest("g")
    assert guest.gateway == gateway
    assert dns.ask(guest, guest.gateway, "git.corp.example").rcode == "SERVFAIL"
    assert dns.ask(guest, guest.gateway, "www.example.org").data == [topology.INTERNET]


def test_subnets_avoid_the_servers_of_forward(configured):
    host = configured("[network]\npools = 10.201.0.0/23\n[dns]\nforward = corp.example=10.201.0.5\n")
    assert host.call("network.create", name="blue")["subnet"] == "10.201.1.0/24"


def test_ttl(configured):
    host = configured("[dns]\nttl = 7\n")
    guest = host.attach_guest("g")
    assert [record.ttl for record in dns.ask(guest, guest.gateway, "g").answers] == [7]


def test_resolv_conf_of_choice(configured, machine):
    path = os.path.join(machine.temporary("resolv"), "conf")
    with open(path, "w", encoding="ascii") as file:
        file.write(f"nameserver {topology.INTERNET_DNS}\n")
    machine.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    try:
        host = configured(f"[dns]\nresolv_conf = {path}\n")
        guest = host.attach_guest("g")
        assert dns.ask(guest, guest.gateway, "www.example.org").data == [topology.INTERNET]
    finally:
        machine.write("/etc/resolv.conf", f"nameserver {topology.INTERNET_DNS}\nsearch corp.example\n")


@pytest.mark.parametrize("text, mode", [("", 0o660), ("[daemon]\nsocket_mode = 0600\n", 0o600)])
def test_socket_mode(configured, text, mode):
    host = configured(text)
    assert stat.S_IMODE(os.stat(host.socket_path).st_mode) == mode


def test_a_comment_and_white_space(configured):
    host = configured("; comment\n[dns]\n  domain   =   lab.test   ; and more\n")
    assert host.call("system.status")["domain"] == "lab.test"


# The log

def test_log_has_no_levels_on_a_terminal_or_file(host):
    assert host.daemon.log() and not re.search(r"(?m)^<\d>", host.daemon.log())


def test_log_has_levels_for_the_journal(machine, internet):
    """systemd names the stream that it reads in JOURNAL_STREAM."""
    path = os.path.join(machine.directory, "moatd.log")
    open(path, "ab").close()
    info = os.stat(path)
    machine.start(env={"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"})
    lines = machine.daemon.log().splitlines()
    assert lines and all(re.match(r"<[3-7]>", line) for line in lines), lines


def test_values_of_callers_can_not_forge_lines_of_the_log(host):
    with host.rpc() as connection:
        connection.send_raw(b'{"jsonrpc":"2.0","id":1,"method":"x\\nmoatd: forged \\u001b[2J","params":{}}\n')
        connection.receive()
    host.error("network.create", name="x\nmoatd: forged")
    assert not re.search(r"(?m)^moatd: forged", host.daemon.log()) and "\x1b" not in host.daemon.log()


def test_notifications_of_readiness(host):
    assert "READY=1" in host.daemon.notified
    process = host.daemon
    host.stop()
    assert process.notified.count("READY=1") == 1
    host.start()


# Users

USER = 47110


@pytest.fixture
def open_host(configured):
    """A host whose moatd every user may talk to."""
    host = configured("[daemon]\nsocket_mode = 0666\n")
    assert os.stat(host.run_dir).st_mode & 0o001, "users can't reach the socket"
    return host


def test_users_that_may_not_are_told(host):
    outcome = host.moat("net", "ls", user=USER, check=False)
    assert outcome.code == 3 and outcome.err.startswith("moat: ") and "ermission denied" in outcome.err, str(outcome)


def test_a_user_runs_a_command(open_host, internet):
    """Without root moat run makes a user namespace; inside the user is who it was."""
    host = open_host
    outcome = host.moat("run", "-n", "mine", "--", "sh", "-c", "id -u; id -g; readlink /proc/self/ns/user", user=USER)
    uid, gid, namespace = outcome.out.split()
    assert (uid, gid) == (str(USER), str(USER))
    assert namespace != os.readlink("/proc/self/ns/user")
    guest = host.run_guest("mine", user=USER)
    assert guest.ping(topology.INTERNET)
    assert dns.ask(guest, guest.gateway, "mine").data == [guest.ip_address]
    assert host.moat("exec", "mine", "--", "id", "-u", user=USER).line == str(USER)


def test_a_users_guest_is_gone_with_its_command(open_host):
    host = open_host
    guest = host.run_guest("mine", "-p", "8080:80", user=USER)
    guest.job.process.kill()
    guest.job.finish()
    wait_for(lambda: host.guest_names() == [], 2, "the guest to be gone")


def test_a_user_can_not_attach_what_is_not_its_own(open_host):
    host = open_host
    space = host.guest_space()
    outcome = host.moat("attach", "steal", "--network", "default", "--pid", space.pid, user=USER, check=False)
    assert outcome.code == 1 and "moat: " in outcome.err
    outcome = host.moat("attach", "steal", "--network", "default", "--pid", host.pid, user=USER, check=False)
    assert outcome.code == 1
    assert host.guest_names() == [] and set(space.links()) == {"lo"}


def test_supplementary_groups_are_kept(host):
    assert host.moat("run", "--", "id", "-G", user=0, groups=[0, 7, 8]).out.split() == ["0", "7", "8"]


def test_subnet_of_default_is_given_back(host):
    """After teardown and a new start the default network is where it was."""
    first = host.call("network.get", name="default")["subnet"]
    host.moat("teardown", "--yes")
    host.stop()
    host.start()
    assert ipaddress.ip_network(host.call("network.get", name="default")["subnet"]) == ipaddress.ip_network(first)
