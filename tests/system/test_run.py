# SPDX-License-Identifier: GPL-2.0-or-later
"""moat run: a command in a network of its own, and nothing else different about it."""

import os
import re
import signal
import socket
import subprocess

import pytest

import daemon
import dns
import servers
import topology
from host import RESOLV_CONF
from netns import alive, process_name, sleepers, unique_seconds
from terminal import Terminal
from wait import PATIENCE, Stopwatch, wait_for


# Fetches a page and prints it, or how much came; what curl would do.
FETCH = ["python3", "-c", "import sys, urllib.request as u; d = u.urlopen(sys.argv[1], timeout=20).read(); "
                          "print(d.decode() if len(d) < 100000 else len(d))"]


def run(host, *args, **kwargs):
    return host.moat("run", *args, **kwargs)


def sh(host, script, *options, **kwargs):
    return host.moat("run", *options, "--", "sh", "-c", script, **kwargs)


# Input, output, exit status

def test_output_and_errors_pass_through(host):
    outcome = sh(host, "echo out; echo err >&2")
    assert (outcome.out, outcome.err) == ("out\n", "err\n")


def test_input_passes_through(host):
    assert run(host, "--", "cat", input="one\ntwo\n").out == "one\ntwo\n"


def test_large_output_is_complete(host):
    assert len(sh(host, "head -c 3000000 /dev/zero | tr '\\0' x").out) == 3000000


@pytest.mark.parametrize("status", [0, 1, 2, 3, 42, 125, 126, 127, 255])
def test_exit_status_is_the_commands(host, status):
    assert sh(host, f"exit {status}", check=False).code == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "HUP", "INT", "USR1"])
def test_killed_command_is_128_plus_signal(host, name):
    number = getattr(signal, f"SIG{name}")
    assert sh(host, f"ulimit -c 0; kill -{name} $$", check=False).code == 128 + number


def test_command_not_found_is_127(host):
    outcome = run(host, "--", "no-such-command", check=False)
    assert outcome.code == 127 and outcome.err.startswith("moat: ") and "no-such-command" in outcome.err
    assert run(host, "--", "/no/such/file", check=False).code == 127
    assert host.guest_names() == []


def test_command_not_executable_is_126(host):
    outcome = run(host, "--", "/etc/passwd", check=False)
    assert outcome.code == 126 and outcome.err.startswith("moat: ") and "/etc/passwd" in outcome.err
    assert run(host, "--", "/etc", check=False).code == 126


@pytest.mark.parametrize("args, word", [(["--network", "nowhere"], "nowhere"), (["--rootfs", "/no/such/dir"], "/no/such/dir"),
                                        (["--network", "default,ip=1.2.3.4"], "1.2.3.4"), (["-w", "/no/such/dir"], "/no/such/dir"),
                                        (["--rootfs", "/etc/passwd"], "/etc/passwd")])
def test_moats_own_failure_is_125(host, args, word):
    outcome = run(host, *args, "--", "echo", "ran", check=False)
    assert outcome.code == 125 and outcome.err.startswith("moat: ") and word in outcome.err, str(outcome)
    assert outcome.out == "", "the command ran all the same"
    assert len(outcome.err.strip().splitlines()) == 1
    assert host.guest_names() == []


def test_unreachable_daemon_is_125(host):
    outcome = run(host, "--", "true", check=False, env={"MOAT_SOCKET": "/no/such/socket"})
    assert outcome.code == 125 and "/no/such/socket" in outcome.err


def test_words_after_the_command_are_the_commands(host):
    assert run(host, "echo", "-n", "--network", "-p").out == "--network -p"
    assert run(host, "--", "echo", "--json", "--help").out == "--json --help\n"


def test_arguments_arrive_unchanged(host):
    words = ["", "a b", "$HOME", "'", '"', "ä", "*", "\n", "-"]
    assert run(host, "--", "printf", "%s|", *words).out == "|".join(words) + "|"


# What is its own

def test_namespaces(host):
    kinds = ["net", "mnt", "pid", "user", "cgroup"]
    inside = sh(host, "for k in net mnt pid user cgroup; do readlink /proc/self/ns/$k; done").out.split()
    outside = [os.readlink(f"/proc/{host.pid}/ns/{kind}") for kind in kinds]
    assert inside[:3] != outside[:3] and all(a != b for a, b in zip(inside[:3], outside[:3]))
    assert inside[3] == outside[3], "root was given a user namespace"


def test_processes_see_only_their_own(host):
    out = sh(host, "cat /proc/[0-9]*/comm").out.split()
    assert not {"moatd", "pytest", "systemd"} & set(out)
    assert len(out) <= 4, out
    assert sh(host, "readlink /proc/self").out.strip().isdigit()


def test_interface_address_and_route(host):
    guest = host.run_guest("web")
    endpoint = guest.endpoint()
    assert (endpoint["interface"], endpoint["prefix"], endpoint["gateway"]) == ("eth0", 16, "10.88.0.1")
    links = guest.links()
    assert set(links) == {"lo", "eth0"}
    assert "UP" in links["lo"]["flags"] and "UP" in links["eth0"]["flags"]
    assert links["eth0"]["address"] == endpoint["mac"] and links["eth0"]["mtu"] == 1500
    assert guest.addresses("eth0") == [endpoint["ip"]]
    default, = [r for r in guest.ip_json("route", "show") if r["dst"] == "default"]
    assert (default["gateway"], default["dev"]) == ("10.88.0.1", "eth0")
    assert guest.ping(topology.INTERNET)
    assert guest.ping("127.0.0.1")


def test_ipv6_is_off_on_a_network_without_it(host):
    guest = host.run_guest("web")
    on_eth0 = [a["local"] for link in guest.ip_json("address", "show", "dev", "eth0") for a in link["addr_info"]
               if a["family"] == "inet6"]
    assert on_eth0 == [], "IPv6 is an unfiltered path on an IPv4 network"
    assert servers.unreachable(guest, "tcp", topology.INTERNET6, 7, 0.2)


def test_guest_record(host):
    guest = host.run_guest("web", "--label", "a=b", "-p", "8080:80")
    info = guest.info
    assert set(info) >= {"id", "name", "kind", "mode", "state", "netns", "pid", "endpoints", "ports", "policy", "labels", "created"}
    assert (info["name"], info["kind"], info["mode"], info["state"]) == ("web", "netns", "full", "running")
    assert info["labels"] == {"a": "b"} and info["owner_pid"] == guest.job.pid
    assert set(info["endpoints"][0]) == {"network", "interface", "host_interface", "ip", "prefix", "ip6", "prefix6", "gateway",
                                        "mac", "aliases"}
    assert info["endpoints"][0]["ip6"] is None and info["endpoints"][0]["prefix6"] is None
    assert process_name(info["pid"]).startswith("sleep") or alive(info["pid"])
    assert info["endpoints"][0]["host_interface"] in host.links()


def test_wishes_are_shown(host):
    """What was asked for beside networks and rules, and nothing where nothing was."""
    host.run_guest("plain")
    host.run_guest("web", "--dns", "192.0.2.53", "--dns-search", "corp.example", "--add-host", "db:192.0.2.9")
    host.moat("localhost", "web", "on")
    wishes = {"dns": ["192.0.2.53"], "dns_search": ["corp.example"], "hosts": ["db:192.0.2.9"], "localhost": True}
    for info in (host.moat("inspect", "web").json[0], next(g for g in host.call("guest.list") if g["name"] == "web")):
        assert {key: info[key] for key in wishes} == wishes
    assert not set(wishes) & set(host.moat("inspect", "plain").json[0])


def test_without_a_name_it_gets_one(host):
    first = host.spawn("run", "--", "sleep", "infinity")
    second = host.spawn("run", "--", "sleep", "infinity")
    names = wait_for(lambda: len(host.guest_names()) == 2 and host.guest_names(), 5, "two guests")
    assert len(set(names)) == 2 and all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", n) for n in names)
    first.close()
    second.close()


def test_a_taken_name_is_refused(host):
    host.run_guest("web")
    outcome = run(host, "-n", "web", "--", "true", check=False)
    assert outcome.code == 125 and "web" in outcome.err and "exists" in outcome.err
    assert host.guest_names() == ["web"]


def test_hostname(host):
    # getpass and friends must not matter: ask the kernel.
    assert sh(host, "cat /proc/sys/kernel/hostname", "--hostname", "box", "-n", "web").out == "box\n"
    assert sh(host, "cat /etc/hosts", "--hostname", "box", "-n", "web").out.count("box") >= 1
    assert host.run("cat", "/proc/sys/kernel/hostname").strip() == os.uname().nodename, "the host was renamed"


# /etc/resolv.conf and /etc/hosts

def test_resolv_conf_is_moats(host):
    before = host.read("/etc/resolv.conf")
    text = run(host, "--", "cat", "/etc/resolv.conf").out
    assert re.search(r"(?m)^nameserver 10\.88\.0\.1$", text)
    assert topology.INTERNET_DNS not in text
    assert re.search(r"(?m)^search .*moat\.internal", text)
    assert host.read("/etc/resolv.conf") == before


def test_dns_search(host):
    text = run(host, "--dns-search", "lab.example", "--dns-search", "corp.test", "--", "cat", "/etc/resolv.conf").out
    search, = re.findall(r"(?m)^search (.*)$", text)
    assert "lab.example" in search.split() and "corp.test" in search.split()


def test_hosts_file(host):
    before = host.read("/etc/hosts")
    guest = host.run_guest("web", "--add-host", "db:192.0.2.9", "--add-host", "six:2001:db8::9")
    text = guest.exec("cat", "/etc/hosts").out
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert ["127.0.0.1", "localhost"] in [line[:2] for line in lines]
    assert any(line[0] == guest.ip_address and "web" in line[1:] for line in lines)
    assert any(line[0] == "192.0.2.9" and "db" in line[1:] for line in lines)
    assert any(line[0] == "2001:db8::9" and "six" in line[1:] for line in lines)
    assert host.read("/etc/hosts") == before
    assert "192.0.2.9" in guest.exec("getent", "ahostsv4", "db").out


def servers_inside(guest):
    return [line.split()[1] for line in guest.exec("cat", "/etc/resolv.conf").out.splitlines() if line.startswith("nameserver")]


def names_inside(guest):
    return {line.split()[0]: line.split()[1:] for line in guest.exec("cat", "/etc/hosts").out.splitlines() if "\t" in line}


@pytest.fixture(params=["files", "link", "none", "user"])
def place(request, host):
    """The host's resolv.conf is a file, leads elsewhere, or is not there; or the caller is not root."""
    host.run("sh", "-ec", {"link": "mv /etc/resolv.conf /etc/resolv.kept; ln -s resolv.kept /etc/resolv.conf",
                           "none": "mv /etc/resolv.conf /etc/resolv.kept"}.get(request.param, ""))
    yield request.param
    if request.param in ("link", "none"):
        host.run("mv", "-f", "/etc/resolv.kept", "/etc/resolv.conf")


def test_files_follow_the_guests_networks(host, place):
    """It joins, leaves the first, and asks the next network's gateway; over restarts of moatd too."""
    host.moat("net", "create", "blue")
    host.moat("net", "create", "mute", "--no-dns")
    os.chmod(host.socket_path, 0o666)
    guest = host.run_guest("web", "--dns", "192.0.2.53", "--add-host", "db:192.0.2.9", user=12345 if place == "user" else None)
    blue = host.call("network.get", name="blue")["gateway"]
    first = guest.gateway
    assert servers_inside(guest) == [first]

    host.moat("attach", "web", "--network", "blue")
    wait_for(lambda: servers_inside(guest) == [first, blue], 3, lambda: f"both gateways: {servers_inside(guest)}")
    ips = {endpoint["network"]: endpoint["ip"] for endpoint in guest.refresh().info["endpoints"]}
    wait_for(lambda: ips["blue"] in names_inside(guest), 3, "the new address")

    host.restart()
    os.chmod(host.socket_path, 0o666)
    host.moat("detach", "web", "--network", "default")
    wait_for(lambda: servers_inside(guest) == [blue], 3, lambda: f"the other gateway alone: {servers_inside(guest)}")
    wait_for(lambda: ips["default"] not in names_inside(guest), 3, "the old address to be gone")
    assert names_inside(guest)[ips["blue"]][0] == "web.moat.internal" and names_inside(guest)["192.0.2.9"] == ["db"]
    assert guest.exec("getent", "hosts", "web.moat.internal").code == 0

    host.moat("attach", "web", "--network", "mute")
    host.moat("detach", "web", "--network", "blue")
    wait_for(lambda: servers_inside(guest) == ["192.0.2.53"], 3, lambda: f"--dns: {servers_inside(guest)}")
    if place != "none":
        assert host.read("/etc/resolv.conf") == RESOLV_CONF, "the host's file was written"


def test_what_the_guest_wrote_into_its_files_stays(host):
    host.moat("net", "create", "blue")
    guest = host.run_guest("web")
    guest.exec("sh", "-c", "echo 192.0.2.7 mine >>/etc/hosts; echo nameserver 192.0.2.1 >/etc/resolv.conf")
    host.moat("attach", "web", "--network", "blue")
    address = guest.refresh().endpoint("blue")["ip"]
    wait_for(lambda: address in guest.exec("cat", "/etc/hosts").out, 3, "the new address")
    assert "192.0.2.7 mine\n" in guest.exec("cat", "/etc/hosts").out
    assert guest.exec("cat", "/etc/resolv.conf").out == "nameserver 192.0.2.1\n"


def test_who_enters_at_once_finds_the_guests_files(host):
    """A guest that is shown as running can be entered, and what is written there is not the host's."""
    before = host.read("/etc/hosts")
    for number in range(8):
        guest = host.run_guest(f"web{number}")
        guest.exec("sh", "-c", "echo 192.0.2.7 mine >>/etc/hosts; echo nameserver 192.0.2.1 >/etc/resolv.conf")
        assert host.read("/etc/hosts") == before and host.read("/etc/resolv.conf") == RESOLV_CONF
        guest.job.send(signal.SIGKILL)


def test_files_are_there_on_a_read_only_etc(host):
    command = host.command(["run", "--", "cat", "/etc/resolv.conf", "/etc/hosts"])
    text = host.run("unshare", "--mount", "sh", "-ec", 'mount -o remount,ro,bind /etc; exec "$@"', "sh", *command,
                    env={"MOAT_SOCKET": host.socket_path, **daemon.sanitizer_environment()})
    assert "nameserver 10.88.0.1" in text and "localhost" in text


def test_files_are_there_where_they_are_symbolic_links(host):
    host.run("sh", "-ec", "mkdir -p /run/resolve; mv /etc/resolv.conf /run/resolve/stub; ln -s ../run/resolve/stub /etc/resolv.conf")
    try:
        assert "nameserver 10.88.0.1" in run(host, "--", "cat", "/etc/resolv.conf").out
        assert topology.INTERNET_DNS in host.read("/run/resolve/stub")
    finally:
        host.run("sh", "-ec", "mv /run/resolve/stub /etc/resolv.conf.old; rm -r /run/resolve /etc/resolv.conf; "
                              "mv /etc/resolv.conf.old /etc/resolv.conf")


def test_files_are_there_where_the_host_has_none(host):
    host.run("mv", "/etc/resolv.conf", "/etc/resolv.conf.kept")
    try:
        outcome = run(host, "--", "cat", "/etc/resolv.conf")
        assert "nameserver 10.88.0.1" in outcome.out
        assert not os.path.lexists(host.path("/etc/resolv.conf")), "a file was left in the host's /etc"
    finally:
        host.run("mv", "/etc/resolv.conf.kept", "/etc/resolv.conf")


def test_files_can_be_written_inside_without_harm(host):
    before = host.read("/etc/resolv.conf")
    sh(host, "echo nameserver 9.9.9.9 > /etc/resolv.conf || true", check=False)
    assert host.read("/etc/resolv.conf") == before
    assert "10.88.0.1" in run(host, "--", "cat", "/etc/resolv.conf").out


def test_mounts_inside_are_not_seen_outside(host):
    before = open(f"/proc/{host.pid}/mountinfo", encoding="utf-8").read()
    host.run_guest("web")
    assert open(f"/proc/{host.pid}/mountinfo", encoding="utf-8").read() == before
    sh(host, "mount -t tmpfs none /mnt && touch /mnt/x")
    assert open(f"/proc/{host.pid}/mountinfo", encoding="utf-8").read() == before


def test_sys_shows_the_guests_interfaces(host):
    assert set(run(host, "--", "ls", "/sys/class/net").out.split()) == {"eth0", "lo"}


# Several networks

def test_several_networks_in_order(host):
    host.call("network.create", name="blue", subnet="10.9.0.0/24")
    host.call("network.create", name="inner", subnet="10.9.1.0/24", internal=True)
    guest = host.run_guest("web", "--network", "blue", "--network", "inner", "--network", "default")
    assert [(e["interface"], e["network"]) for e in guest.info["endpoints"]] == [
        ("eth0", "blue"), ("eth1", "inner"), ("eth2", "default")]
    default, = [r for r in guest.ip_json("route", "show") if r["dst"] == "default"]
    assert (default["gateway"], default["dev"]) == ("10.9.0.1", "eth0")
    for gateway in ("10.9.0.1", "10.9.1.1", "10.88.0.1"):
        assert guest.ping(gateway), gateway
    assert guest.ping(topology.INTERNET)


def test_wishes_for_an_endpoint(host):
    guest = host.run_guest("web", "--network", "default,ip=10.88.9.9,mac=02:00:00:00:00:99,alias=a1,alias=a2")
    endpoint = guest.endpoint()
    assert (endpoint["ip"], endpoint["mac"]) == ("10.88.9.9", "02:00:00:00:00:99")
    assert sorted(endpoint["aliases"]) == ["a1", "a2"]
    assert guest.links()["eth0"]["address"] == "02:00:00:00:00:99"
    assert dns.ask(guest, guest.gateway, "a2").data == ["10.88.9.9"]


def test_the_same_network_twice_is_refused(host):
    outcome = run(host, "--network", "default", "--network", "default", "--", "true", check=False)
    assert outcome.code == 125 and "default" in outcome.err


# Modes

def test_mode_disabled(host):
    guest = host.run_guest("off", "--mode", "disabled")
    up = [name for name, link in guest.links().items() if "UP" in link["flags"]]
    assert up == [], "an interface is up"
    assert guest.info["mode"] == "disabled"
    assert servers.unreachable(guest, "tcp", "127.0.0.1", 80)


def test_mode_loopback(host):
    guest = host.run_guest("local", "--mode", "loopback")
    up = [name for name, link in guest.links().items() if "UP" in link["flags"]]
    assert up == ["lo"]
    with servers.TcpServer(guest, 80):
        assert servers.tcp_greeting(guest, "127.0.0.1", 80)[0] == "tcp"
    assert not guest.ping("10.88.0.1", timeout=0.2)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_mode_outbound(host, lan, outside, internet, protocol, bridge_nf):
    guest = host.run_guest("out", "--mode", "outbound")
    full = host.attach_guest("full")
    other_out = host.attach_guest("out2", "--mode", "outbound")
    server = servers.TcpServer if protocol == "tcp" else servers.UdpServer
    lan.ip("route", "add", "10.88.0.0/16", "via", topology.HOST)
    try:
        with server(guest, 80, name="guest") as closed, server(full, 80, name="full"):
            # It may open connections to all there is,
            assert servers.greeting(guest, protocol, topology.INTERNET, 7)[0] == "outside"
            assert servers.greeting(guest, protocol, full.ip_address, 80)[0] == "full"
            assert guest.ping(topology.INTERNET) and guest.ping(full.ip_address) and guest.ping("10.88.0.1")
            assert dns.ask(guest, guest.gateway, "full").data == [full.ip_address]
            assert dns.ask(guest, guest.gateway, "www.example.org").data == [topology.INTERNET]
            # and nobody may open one to it.
            for who, net in (("the host", host), ("a peer", full), ("another outbound guest", other_out), ("the lan", lan)):
                assert servers.unreachable(net, protocol, guest.ip_address, 80), f"{who} reached an outbound guest"
                assert not net.ping(guest.ip_address, timeout=0.2), f"{who} pinged an outbound guest"
            assert closed.clients == []
    finally:
        lan.ip("route", "del", "10.88.0.0/16")


def test_outbound_guest_does_not_share_its_peers_segment(host):
    guest = host.run_guest("out", "--mode", "outbound")
    full = host.attach_guest("full")
    links = host.links()
    assert links[full.endpoint()["host_interface"]].get("master") == "moat0"
    assert "master" not in links[guest.endpoint()["host_interface"]]


def test_answers_reach_an_outbound_guest_for_long(host, internet):
    guest = host.run_guest("out", "--mode", "outbound")
    with servers.connect(guest, topology.INTERNET, 7) as sock:
        servers.read_line(sock)
        for _ in range(5):
            sock.sendall(b"x" * 10000)
            assert len(dns.receive_exactly(sock, 10000)) == 10000


# What is kept

def test_caller_stays_who_it_is(host):
    assert run(host, "--", "id").out == host.run("id")


@pytest.mark.parametrize("user, expected", [("1234", "1234 1234"), ("1234:4321", "1234 4321"), ("0:0", "0 0")])
def test_another_user_by_option(host, user, expected):
    assert sh(host, 'echo $(id -u) $(id -g)', "-u", user).out.strip().split()[0] == expected.split()[0]
    if ":" in user:
        assert sh(host, 'echo $(id -u) $(id -g)', "-u", user).out.strip() == expected


def test_another_user_has_no_capabilities(host):
    text = run(host, "-u", "1234:1234", "--", "cat", "/proc/self/status").out
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
    assert status["Groups"].split() in ([], ["1234"])


def test_directory_is_kept(host):
    place = host.temporary("here")
    assert run(host, "--", "pwd", cwd=place).out.strip() == place
    assert run(host, "-w", "/usr", "--", "pwd", cwd=place).out.strip() == "/usr"


def test_environment_is_kept(host):
    out = sh(host, "echo $KEEP $NEW $CHANGED", "-e", "NEW=n w", "-e", "CHANGED=2", env={"KEEP": "k", "CHANGED": "1"}).out
    assert out == "k n w 2\n"
    assert "empty=\n" in sh(host, "env | grep ^empty", "-e", "empty=").out


def test_umask_is_kept(host):
    command = host.command(["run", "--", "sh", "-c", "umask"])
    for mask in ("0027", "0077", "0000"):
        out = host.run("sh", "-c", f'umask {mask}; exec "$@"', "sh", *command,
                       env={"MOAT_SOCKET": host.socket_path, **daemon.sanitizer_environment()})
        assert out.strip() == mask


def test_resource_limits_are_kept(host):
    command = host.command(["run", "--", "sh", "-c", "ulimit -n; ulimit -c"])
    out = host.run("sh", "-c", 'ulimit -n 123; ulimit -c 0; exec "$@"', "sh", *command,
                   env={"MOAT_SOCKET": host.socket_path, **daemon.sanitizer_environment()})
    assert out.split() == ["123", "0"]


def test_signal_dispositions_are_the_callers(host):
    plain = host.run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    inside = run(host, "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").out
    assert inside == plain


def test_no_descriptors_are_inherited(host):
    with open("/etc/passwd", "rb") as leak:
        os.set_inheritable(leak.fileno(), True)
        job = host.spawn("run", "--", "sh", "-c", "ls /proc/$$/fd", pass_fds=(leak.fileno(),))
        outcome = job.finish()
    fds = {int(fd) for fd in outcome.out.split()}
    assert fds <= {0, 1, 2, 10}, f"inherited descriptors: {sorted(fds)}"
    paths = sh(host, "readlink /proc/self/fd/* || true").out
    assert "socket:" not in paths and "net:[" not in paths, paths


def test_closed_standard_streams(host):
    job = host.spawn("run", "--", "true", stdin=None, stdout=None, stderr=None,
                     preexec_fn=lambda: os.closerange(0, 3))
    assert job.process.wait(10) in (0,)


# Signals and the end

@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_command(host, name):
    number = getattr(signal, f"SIG{name}")
    job = host.spawn("run", "-n", "web", "--", "sh", "-c", f"trap 'echo got {name}; exit 7' {name}; echo ready; "
                                                          "while :; do sleep 0.05; done")
    assert job.process.stdout.readline() == "ready\n"
    job.send(number)
    outcome = job.finish()
    assert (outcome.out, outcome.code) == (f"got {name}\n", 7)


def test_terminated_command_ends_with_143(host):
    guest = host.run_guest("web")
    guest.job.send(signal.SIGTERM)
    assert guest.job.finish().code == 143
    assert host.guest_names() == []


def test_when_the_command_ends_all_that_it_started_is_gone(host):
    marker = unique_seconds(4711)
    outcome = sh(host, f"sleep {marker} & setsid sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) ; "
                       "sleep 0.1; exit 5", check=False)
    assert outcome.code == 5
    assert sleepers(marker) == [], "processes outlive their command"


def test_background_writers_do_not_hold_the_end(host):
    with Stopwatch() as watch:
        sh(host, "sleep 30 & exit 0")
    assert watch.ms < 3000 * PATIENCE


def test_orphans_inside_are_reaped(host):
    guest = host.run_guest("web", command=("sh", "-c", "for i in 1 2 3 4 5; do (sh -c 'sleep 0.01 &' &); done; "
                                                       "sleep 0.3; echo done; exec sleep infinity"))
    assert guest.job.process.stdout.readline() == "done\n"
    states = guest.exec("sh", "-c", "cat /proc/[0-9]*/stat").out
    assert not re.search(r"\) Z ", states), f"zombies inside:\n{states}"


def gone_after(host, guest, names, action):
    """How long after action() everything of the guest is gone, in ms; and what was the last to go."""
    endpoint = guest.endpoint()
    state = {}

    def remains():
        state["left"] = [what for what, there in (
            ("process", lambda: alive(guest.pid)),
            ("guest", lambda: guest.name in host.guest_names()),
            ("link", lambda: os.path.exists(host.path(f"/sys/class/net/{endpoint['host_interface']}"))),
            ("port", lambda: not port_free(host, 8080)),
        ) if there()]
        return state["left"]

    with Stopwatch() as watch:
        action()
        wait_for(lambda: not remains(), 3, lambda: f"all to be gone; left: {state['left']}", every=0.002)
    for name in names:
        assert dns.ask(host, endpoint["gateway"], name).rcode == "NXDOMAIN", f"{name} is still answered"
    return watch.ms


def port_free(host, port):
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("how", ["command ends", "moat is killed"])
def test_everything_is_gone_within_100_ms(host, how):
    marker = unique_seconds(4712)
    times = []
    for _ in range(3):
        guest = host.run_guest("web", "-p", "8080:80", "--network", "default,alias=www",
                               command=("sh", "-c", f"sleep {marker} & setsid sleep {marker} & read x"), stdin=subprocess.PIPE)
        action = guest.job.process.kill if how == "moat is killed" else lambda: guest.job.write("\n")
        times.append(gone_after(host, guest, ["web", "www"], action))
        guest.job.close()
        assert sleepers(marker) == []
    # A busy machine may be late once; moat is not late each time.
    assert min(times) < 100 * max(PATIENCE, 1), f"{min(times):.0f} ms until all was gone"


def test_the_name_and_address_are_free_at_once(host):
    for _ in range(5):
        run(host, "-n", "web", "--network", "default,ip=10.88.3.3", "-p", "8080:80", "--", "true")


# Somebody else detaches it

def remove(host, how):
    if how == "network":
        host.moat("net", "rm", "--force", "blue")
    elif how == "last network":
        host.moat("detach", "web", "--network", "blue")
    elif how == "teardown":
        host.moat("teardown", "--yes")
    else:
        host.moat("detach", "web")


@pytest.mark.parametrize("how", ["guest", "last network", "network", "teardown"])
def test_whoever_detaches_the_guest_ends_its_command(host, how):
    host.moat("net", "create", "blue")
    guest = host.run_guest("web", "--network", "blue", command=("sleep", "infinity"))
    told = host.run_guest("told", command=("sh", "-c", "trap 'echo told; exit 7' TERM; echo ready; while :; do read x; done"),
                          stdin=subprocess.PIPE)
    assert told.job.process.stdout.readline() == "ready\n"
    remove(host, how)
    outcome = guest.job.finish()
    lines = outcome.err.strip().splitlines()
    assert outcome.code == 128 + signal.SIGTERM
    assert len(lines) == 1 and lines[0].startswith('moat: guest "web" is gone') and "ending its command" in lines[0], outcome
    assert not alive(guest.pid)
    if how == "teardown":
        outcome = told.job.finish()
        assert (outcome.code, outcome.out) == (7, "told\n") and "teardown" in outcome.err
    else:
        assert alive(told.job.pid) and host.guest_names() == ["told"]


def test_a_command_that_does_not_end_is_killed_after_ten_seconds(host):
    guest = host.run_guest("web", command=("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"))
    assert guest.job.process.stdout.readline() == "ready\n"
    with Stopwatch() as watch:
        host.moat("detach", "web")
        assert guest.job.finish(20).code == 128 + signal.SIGKILL
    assert watch.ms > 9000
    assert not alive(guest.pid)


@pytest.mark.parametrize("crash", [False, True])
def test_a_detach_is_heard_of_after_restarts(host, crash):
    guest = host.run_guest("web")
    for _ in range(2):
        host.restart(crash=crash)
    assert alive(guest.job.pid)
    host.moat("detach", "web")
    assert guest.job.finish().code == 128 + signal.SIGTERM


def test_a_name_that_is_taken_again_at_once_is_not_harmed(host):
    """The command that ends late belongs to nobody's guest any more."""
    first = host.run_guest("web", command=("sh", "-c", "trap 'read x' TERM; echo ready; while :; do sleep 0.1; done"),
                           stdin=subprocess.PIPE)
    assert first.job.process.stdout.readline() == "ready\n"
    host.moat("detach", "web")
    second = host.run_guest("web")
    first.job.process.kill()
    first.job.finish()
    assert alive(second.job.pid) and second.ping(second.gateway)
    third = host.run_guest("third", command=("sh", "-c", "trap 'read x; exit 0' TERM; echo ready; while :; do sleep 0.1; done"),
                           stdin=subprocess.PIPE)
    assert third.job.process.stdout.readline() == "ready\n"
    host.moat("detach", "third")
    again = host.run_guest("third")
    third.job.write("\n")
    assert third.job.finish().code == 0
    assert alive(again.job.pid) and again.ping(again.gateway)


def test_signals_pass_while_moatd_hangs(host):
    guest = host.run_guest("web")
    host.moat("net", "create", "blue")
    host.daemon.process.send_signal(signal.SIGSTOP)
    guest.job.send(signal.SIGTERM)
    wait_for(lambda: not alive(guest.pid), 3, "the command to end")
    host.daemon.process.send_signal(signal.SIGCONT)
    assert guest.job.finish().code == 128 + signal.SIGTERM


# Terminals

@pytest.fixture
def terminal(host):
    """A shell on a terminal of the host; moat is in its path."""
    env = host._environment({"PS1": "host$ ", "PATH": os.path.dirname(daemon.binary("moat")) + ":/usr/sbin:/usr/bin:/sbin:/bin",
                             "TERM": "dumb", "HISTFILE": ""})
    with Terminal(host, ["bash", "--norc", "--noprofile", "-i"], env) as term:
        term.expect(r"host\$ ")
        term.type("stty -echo\n")
        term.expect(r"host\$ ")
        yield term
        before = term.attributes()
        term.type("exit\n")
        term.end()
        assert before


def test_terminal_is_the_callers(host, terminal):
    terminal.type("moat run -- sh -c 'test -t 0 && test -t 1 && test -t 2 && tty && echo yes'\n")
    terminal.expect(r"/dev/pts/\d+\r?\n")
    terminal.expect("yes")
    terminal.expect(r"host\$ ")


def test_ctrl_c_ends_the_command(host, terminal):
    terminal.type("moat run -n web -- sh -c 'echo ready; exec sleep 1000'\n")
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect(r"host\$ ")
    terminal.type("echo status=$?\n")
    terminal.expect("status=130")
    wait_for(lambda: host.guest_names() == [], 2, "the guest to be gone")


def test_ctrl_c_is_the_commands_business(host, terminal):
    terminal.type("""moat run -- sh -c 'trap "echo caught" INT; echo ready; while :; do read x && exit 9; done'\n""")
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("caught")
    terminal.type("\n")
    terminal.expect(r"host\$ ")
    terminal.type("echo status=$?\n")
    terminal.expect("status=9")


def test_ctrl_backslash(host, terminal):
    terminal.type("moat run -- sh -c 'ulimit -c 0; echo ready; exec sleep 1000'\n")
    terminal.expect("ready")
    terminal.type("\x1c")
    terminal.expect(r"host\$ ")
    terminal.type("echo status=$?\n")
    terminal.expect("status=131")


def test_ctrl_z_and_fg(host, terminal):
    terminal.type("moat run -n web -- sh -c 'echo ready; read x; echo got $x; exit 4'\n")
    terminal.expect("ready")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect(r"host\$ ")
    assert host.guest_names() == ["web"], "a stopped guest is gone"
    terminal.type("jobs\n")
    terminal.expect("Stopped.*moat run")
    terminal.expect(r"host\$ ")
    terminal.type("fg\n")
    terminal.expect("moat run")
    terminal.type("hello\n")
    terminal.expect("got hello")
    terminal.expect(r"host\$ ")
    terminal.type("echo status=$?\n")
    terminal.expect("status=4")


def test_ctrl_z_and_bg(host, terminal):
    # exec: a shell that is stopped between vfork and exec of its child hangs, with moat and without (dash does so).
    terminal.type("moat run -n web -- sh -c 'echo ready; exec sleep 3'\n")
    terminal.expect("ready")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("bg; wait; echo status=$?\n")
    terminal.expect("status=0", 15)


def test_background_job_is_usable(host, terminal):
    terminal.type("moat run -n web -- sleep 1000 &\n")
    terminal.expect(r"\[1\] \d+")
    wait_for(lambda: host.guest_names() == ["web"], 5, "the guest in the background")
    terminal.type("kill %1; wait; echo ended\n")
    terminal.expect("ended")
    wait_for(lambda: host.guest_names() == [], 2, "the guest to be gone")


def test_a_shell_inside_has_job_control(host, terminal):
    terminal.type("PS1='inner$ ' moat run -n web -- bash --norc --noprofile -i\n")
    terminal.expect(r"inner\$ ", 8)
    assert "no job control" not in terminal.shown
    marker = unique_seconds(4716)
    terminal.type(f"sleep {marker}\n")
    wait_for(lambda: sleepers(marker), 3, "the command to run")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect(r"inner\$ ")
    terminal.type("jobs\n")
    terminal.expect(f"Stopped +sleep {marker}")
    terminal.type("fg\n")
    terminal.expect(f"sleep {marker}")
    terminal.type("\x03")
    terminal.expect(r"inner\$ ")
    terminal.type("exit 6\n")
    terminal.expect(r"host\$ ")
    terminal.type("echo status=$?\n")
    terminal.expect("status=6")


def test_the_plain_shell_inside(host, terminal):
    """dash, which is /bin/sh here, gives the terminal back to whom it had it from when it ends."""
    terminal.type("PS1='inner: ' moat run -- sh\n")
    terminal.expect("inner: ", 8)
    terminal.type("exit 3\n")
    terminal.expect(r"host\$ ")
    terminal.type("echo status=$?\n")
    terminal.expect("status=3")
    assert "process group" not in terminal.shown


def test_window_size(host, terminal):
    terminal.resize(31, 99)
    terminal.type("""moat run -- bash -c 'stty size; trap "stty size" WINCH; echo ready; while :; do read -t 0.05 x && break; done'\n""")
    terminal.expect("31 99")
    terminal.expect("ready")
    terminal.resize(44, 123)
    terminal.expect("44 123")
    terminal.type("\n")
    terminal.expect(r"host\$ ")


def test_terminal_settings_are_left_as_they_were(host, terminal):
    before = terminal.attributes()
    terminal.type("moat run -- true; echo over\n")
    terminal.expect("over")
    terminal.expect(r"host\$ ")
    assert terminal.attributes() == before


def test_pipelines(host, terminal):
    terminal.type("echo hello | moat run -- tr a-z A-Z | moat run -- tr L 1\n")
    terminal.expect("HE11O")
    terminal.expect(r"host\$ ")


def test_without_a_terminal(host):
    outcome = run(host, "--", "sh", "-c", "test -t 0 || echo none")
    assert outcome.out == "none\n"


# Callers that are not root

USER = 47110


def test_caller_without_rights_is_told(host):
    outcome = host.moat("net", "ls", user=USER, check=False)
    if outcome.code != 0:
        assert outcome.code in (1, 3) and outcome.err.startswith("moat: "), str(outcome)
        assert "permission" in outcome.err.lower()


# Names

def test_guests_reach_one_another_by_name(host):
    web = host.run_guest("web")
    with servers.HttpServer(web, 80):
        outcome = run(host, "--", *FETCH, "http://web/")
        assert outcome.out.strip() == "hello from web"
        outcome = run(host, "--", *FETCH, "http://web.moat.internal/")
        assert outcome.out.strip() == "hello from web"


def test_the_whole_story(host, lan, internet):
    """What the quickstart shows: publish, fetch from everywhere, resolve, download, gone."""
    job = host.spawn("run", "-n", "web", "-p", "8080:80", "--", "python3", "-m", "http.server", "80", "-d", host.temporary("www"))
    wait_for(lambda: not servers.unreachable(host, "tcp", "127.0.0.1", 8080, 0.1) or
             port_answers(host, "127.0.0.1", 8080), 8, "the web server in the guest")
    for net, address in ((host, "127.0.0.1"), (host, "::1"), (lan, topology.HOST)):
        assert "Directory listing" in servers.http_get(net, address, "/", 8080), address
    outcome = run(host, "-n", "second", "--", *FETCH, "http://web/")
    assert "Directory listing" in outcome.out
    size = run(host, "--", *FETCH, f"http://{topology.INTERNET}/bytes/100000000", timeout=30).line
    assert size == "100000000"
    job.send(signal.SIGINT)
    job.finish()
    wait_for(lambda: host.guest_names() == [], 2, "all guests to be gone")


def port_answers(net, address, port):
    try:
        servers.http_get(net, address, "/", port, 0.5)
    except OSError:
        return False
    return True


def test_process_numbers_of_another_namespace_are_refused(host):
    """Inside a guest a process has another number: the one that has this number outside is a bystander's."""
    bystander = host.guest_space("bystander")
    outcome = host.moat("run", "--", daemon.binary("moat"), "attach", "wrong", "--pid", bystander.pid, "--network", "default", check=False)
    assert outcome.code == 1 and "process namespace" in outcome.err, outcome
    outcome = host.moat("run", "--", daemon.binary("moat"), "run", "--", "true", check=False)
    assert outcome.code == 125 and "process namespace" in outcome.err, outcome
    assert host.guest_names() == [] and "eth0" not in bystander.links()


def test_the_resolver_with_a_way_out_is_asked_first(host):
    host.call("network.create", name="inner", internal=True)
    outcome = host.moat("run", "--network", "inner", "--network", "default", "--", "cat", "/etc/resolv.conf")
    servers_listed = [line.split()[1] for line in outcome.out.splitlines() if line.startswith("nameserver")]
    assert servers_listed == ["10.88.0.1", host.call("network.get", name="inner")["gateway"]]
