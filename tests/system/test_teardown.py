# SPDX-License-Identifier: GPL-2.0-or-later
"""moat teardown --yes: the host as it was before the first start, to the last setting.

The fixture of every test ends with the same comparison; here are the states that make it hard.
"""

import os
import subprocess

import pytest

import daemon
import servers
import topology
from netns import alive
from wait import Stopwatch, wait_for


def fill(host):
    host.call("network.create", name="blue", subnet="10.9.0.0/24", bridge="br-blue")
    host.call("network.create", name="inner", internal=True)
    host.call("dns.add", name="printer", ip="192.168.77.44")
    return [host.attach_guest("web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "9000-9999:9000-9999"),
            host.attach_guest("out", "--mode", "outbound", network="blue"),
            host.run_guest("run", "-p", "8081:80", "--network", "default", "--network", "inner")]


def after_teardown(host):
    """What is different from before the first start, moatd itself included: it ends with the teardown."""
    host.end_processes()
    host.drop_connections()
    host.daemon.wait_end()
    return host.before.differences(host.trace())


def check_no_trace(host):
    wait_for(lambda: not after_teardown(host), 3, lambda: "no trace to be left:\n  " + "\n  ".join(after_teardown(host)))


def test_of_a_full_host(host):
    fill(host)
    host.moat("teardown", "--yes")
    check_no_trace(host)


def test_takes_the_guests_interfaces_along(host):
    web, out, _ = fill(host)
    host.moat("teardown", "--yes")
    for guest in (web, out):
        assert set(guest.links()) == {"lo"}, f"{guest.name} still has {set(guest.links())}"


def test_ports_are_free_afterwards(host):
    fill(host)
    host.moat("teardown", "--yes")
    for port in (8080, 8081, 9500, 53):
        for kind in (1, 2):
            servers.bound(host, kind, "0.0.0.0", port).close()
            servers.bound(host, kind, "::", port).close()


def test_workers_end(host):
    fill(host)
    status = host.call("system.status")
    host.moat("teardown", "--yes")
    for key in ("dns_pid", "relay_pid"):
        if status.get(key):
            wait_for(lambda: not alive(status[key]), 3, f"the worker {key} to end")


def test_after_a_crash(host):
    fill(host)
    host.crash()
    host.start()
    host.moat("teardown", "--yes")
    check_no_trace(host)


def test_after_a_reboot(host):
    fill(host)
    host.reboot()
    host.moat("teardown", "--yes")
    check_no_trace(host)


def test_twice(host):
    fill(host)
    host.moat("teardown", "--yes")
    host.stop()
    host.start()
    fill(host)
    host.moat("teardown", "--yes")
    check_no_trace(host)


def test_asks_first(host):
    fill(host)
    outcome = host.moat("teardown", check=False, input="n\n")
    assert outcome.code in (1, 2), str(outcome)
    assert "--yes" in outcome.err
    assert len(host.call("guest.list")) == 3


def test_json(host):
    assert host.moat("teardown", "--yes", "--json").json == {}


def test_a_restart_after_teardown_begins_anew(host):
    host.call("network.create", name="blue")
    host.moat("teardown", "--yes")
    host.stop()
    host.start()
    assert host.moat("net", "ls", "-q").out == "default\n"


SETTINGS = {
    "redirects and filters of a careful admin": {
        "ipv4/conf/all/accept_redirects": 0, "ipv4/conf/default/accept_redirects": 0, "ipv4/conf/eth0/accept_redirects": 0,
        "ipv4/conf/all/rp_filter": 1, "ipv4/conf/default/rp_filter": 1, "ipv4/conf/all/send_redirects": 0},
    "a router": {"ipv4/ip_forward": 1},
    "forwarding on one link only": {"ipv4/conf/eth0/forwarding": 1},
    "no forwarding on new links": {"ipv4/ip_forward": 1, "ipv4/conf/default/forwarding": 0},
    "route_localnet on": {"ipv4/conf/all/route_localnet": 1},
    "IPv6 forwarding": {"ipv6/conf/all/forwarding": 1},
    "without IPv6": {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1},
    "a small port range": {"ipv4/ip_local_port_range": "50000\t50999"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_administrator_come_back(machine, internet, name):
    """Whatever the host was set to before, it is again; also where the kernel changes several at once."""
    former = {key: machine.sysctl(key) for key in SETTINGS[name]}
    everything = machine.trace()
    try:
        for key, value in SETTINGS[name].items():
            machine.sysctl(key, value)
        machine.before = machine.trace()
        machine.start()
        guest = machine.attach_guest("box", "-p", "8080:80")
        assert guest.ping(topology.INTERNET)
        machine.end_processes()
        machine.moat("teardown", "--yes")
        check_no_trace(machine)
    finally:
        for key, value in reversed(former.items()):
            machine.sysctl(key, value)
        restore(machine, everything)


def restore(machine, everything):
    """What the test itself changed, and the kernel along with it."""
    if machine.daemon and machine.daemon.running():
        return
    for key, value in everything.state["sysctl"].items():
        try:
            if machine.sysctl(key) != value:
                machine.sysctl(key, value)
        except OSError:
            continue
    addresses = [a["local"] for a in machine.ip_json("address", "show", "dev", "eth0")[0]["addr_info"]]
    if machine.address6 not in addresses:
        machine.ip("address", "add", f"{machine.address6}/64", "dev", "eth0", "nodad")
        machine.ip("-6", "route", "replace", "default", "via", topology.ROUTER6)
    machine.before = machine.trace()


@pytest.mark.parametrize("name", ["accept_source_route", "accept_redirects", "forwarding"])
def test_a_setting_that_the_administrator_changed_meanwhile_stays(machine, name):
    """Forwarding was off before moat; then somebody turned a setting of eth0 on his own account."""
    setting = f"ipv4/conf/eth0/{name}"
    former = machine.sysctl(setting)
    machine.start()
    changed = "0" if machine.sysctl(setting) == "1" else "1"
    machine.sysctl(setting, changed)
    machine.attach_guest("box")
    machine.moat("teardown", "--yes")
    assert machine.sysctl(setting) == changed and machine.sysctl("ipv4/ip_forward") == "0"
    machine.sysctl(setting, former)


def test_things_of_others_stay(host):
    host.nft("table inet admin { chain in { type filter hook input priority 0; } }\n"
             "table ip moat_like { set s { type ipv4_addr; elements = { 192.0.2.1 } } }")
    host.ip_batch(["link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up",
                   "link add moatish type bridge", "route add 10.50.0.0/16 via 192.168.77.1",
                   "rule add from 10.50.0.0/16 lookup 50 pref 5000"])
    host.write("/etc/keep", "mine\n")
    fill(host)
    host.moat("teardown", "--yes")
    links = host.links()
    assert "docker0" in links and "moatish" in links
    assert "table inet admin" in host.run("nft", "list", "tables") and "moat_like" in host.run("nft", "list", "tables")
    assert "10.50.0.0/16" in host.ip("route") and "lookup 50" in host.ip("rule")
    host.run("nft", "delete", "table", "inet", "admin")
    host.run("nft", "delete", "table", "ip", "moat_like")
    host.ip_batch(["link del docker0", "link del moatish", "route del 10.50.0.0/16", "rule del pref 5000"])
    os.unlink(host.path("/etc/keep"))
    check_no_trace(host)


def test_forwarding_is_counted(host):
    """Forwarding goes back with the last network that needs it, and not before."""
    assert host.sysctl("ipv4/ip_forward") == "1", "the default network forwards"
    host.call("network.create", name="blue")
    host.call("network.remove", name="blue")
    assert host.sysctl("ipv4/ip_forward") == "1"


def test_files_that_were_there_stay(machine, internet):
    """Directories that the administrator made (systemd does) stay, with what others put into them."""
    os.makedirs(machine.state_dir)
    os.makedirs(machine.run_dir)
    with open(os.path.join(machine.state_dir, "notes"), "w", encoding="ascii") as file:
        file.write("mine\n")
    machine.before = machine.trace()
    machine.start()
    fill(machine)
    machine.end_processes()
    machine.moat("teardown", "--yes")
    check_no_trace(machine)
    os.unlink(os.path.join(machine.state_dir, "notes"))
    os.rmdir(machine.state_dir)
    os.rmdir(machine.run_dir)
    machine.before = machine.trace()


def test_while_traffic_runs(host, internet):
    guest = host.attach_guest("box")
    with servers.connect(guest, topology.INTERNET, 7) as sock:
        servers.read_line(sock)
        host.moat("teardown", "--yes")
    check_no_trace(host)


def test_with_a_stopped_command(host):
    guest = host.run_guest("box")
    guest.job.send(19)
    host.moat("teardown", "--yes")
    guest.job.send(18)
    check_no_trace(host)


def test_of_a_hundred_guests_is_quick(host):
    spaces = [host.guest_space() for _ in range(100)]
    for i, space in enumerate(spaces):
        host.call("guest.attach", name=f"g{i}", kind="netns", pid=space.pid, networks=[{"name": "default"}],
                  ports=[f"{10000 + i}:80"])
    with Stopwatch() as watch:
        host.moat("teardown", "--yes")
    assert watch.ms < 5000
    check_no_trace(host)


def test_default_directories(machine, internet):
    """Without options moatd uses /var/lib/moat and /run/moat, and moat finds it there."""
    process = machine.popen(daemon.binary("moatd"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            env=daemon.sanitizer_environment())
    try:
        no_socket = {"MOAT_SOCKET": None}
        wait_for(lambda: machine.moat("status", env=no_socket, check=False).code == 0, 8, "moatd to answer at its default socket")
        assert os.path.exists(machine.path("/var/lib/moat/moat.db")) and os.path.exists(machine.path("/run/moat/moat.sock"))
        machine.moat("teardown", "--yes", env=no_socket)
    finally:
        if process.poll() is None:
            process.terminate()
        _, log = process.communicate(timeout=10)
    assert process.returncode == 0, log
    wait_for(lambda: not machine.before.differences(machine.trace()), 3, lambda: "\n".join(machine.before.differences(machine.trace())))
