# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the system tests.

`host` is what nearly every test asks for: a machine with a moatd that has just been started for the first time.
When the test is over, its commands are ended, `moat teardown --yes` is called and the machine is compared with what
it was before: links, addresses, routes, rules, nftables, sysctls, processes, mounts and files.
"""

import os
import signal

import pytest

import daemon
import dns
import netns
import servers
import topology
import trace
import wait
from host import Host

_LIMIT_S = 60


def pytest_addoption(parser):
    parser.addoption("--attacks", action="store_true", help="at the end, a table of what hostile guests tried (marker attack)")


def pytest_configure(config):
    if config.option.collectonly or config.option.help:
        return
    if os.geteuid() != 0:
        raise pytest.UsageError("the system tests make network namespaces: run them as root")
    missing = netns.tool_missing("ip", "nft", "nsenter", "unshare", "setpriv", "ping")
    if missing:
        raise pytest.UsageError(f"the system tests need {', '.join(missing)} (iproute2, nftables, util-linux, iputils)")
    for name in ("moatd", "moat"):
        if not daemon.binary(name):
            raise pytest.UsageError(f"no {name} in {daemon.build_directory()}: build first, or set MOAT_BUILD")
    netns.end_leftovers()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Stop a test that hangs, so that the fixtures can still clean up and say what happened."""
    marker = item.get_closest_marker("limit")
    seconds = int((marker.args[0] if marker else _LIMIT_S) * wait.PATIENCE)

    def expire(_signal, _frame):
        raise AssertionError(f"the test did not end within {seconds} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show moatd's log beside a failure."""
    outcome = yield
    report = outcome.get_result()
    report.attacks = [(name, mark.kwargs["control"]) for mark in item.iter_markers("attack") for name in mark.args]
    host = getattr(item, "moat_host", None)
    if report.failed and host is not None and host.daemon is not None:
        report.sections.append(("moatd's log", host.daemon.log()[-8000:]))


def pytest_terminal_summary(terminalreporter, config):
    """Attack, outcome, control. A test passes only if the control arrived and the attack did not."""
    if not config.option.attacks:
        return
    outcomes = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for attack in getattr(report, "attacks", []):
                outcomes.setdefault(attack, set()).add(outcome)
    rows = [("attack", "outcome", "control, which arrived")]
    rows += [(name, "stopped" if found == {"passed"} else "/".join(sorted(found)).upper(), control)
             for (name, control), found in outcomes.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    terminalreporter.section(f"{len(outcomes)} attacks")
    for row in rows:
        terminalreporter.write_line(f"{row[0].ljust(widths[0])}  {row[1].ljust(widths[1])}  {row[2]}")


def pytest_generate_tests(metafunc):
    """A test that asks for bridge_nf runs twice: with bridged packets handed to iptables, and without."""
    if "bridge_nf" in metafunc.fixturenames:
        metafunc.parametrize("bridge_nf", [0, 1], ids=["br_nf=0", "br_nf=1"])


@pytest.fixture(scope="session")
def world():
    before = trace.root_state()
    world = topology.World()
    yield world
    world.close()
    assert trace.root_state() == before, "the machine's own namespace was changed"


class Internet:
    """The servers outside: a web server, TCP and UDP servers on port 7, and the host's resolver."""

    def __init__(self, outside):
        self.http = servers.HttpServer(outside, 80, topology.INTERNET, "outside")
        self.tcp = servers.TcpServer(outside, 7, name="outside")
        self.udp = servers.UdpServer(outside, 7, topology.INTERNET, name="outside")
        self.dns = dns.DnsServer(outside, topology.INTERNET_DNS)
        self.reset()

    def reset(self):
        self.dns.reset()
        self.dns.add("www.example.org", "A", topology.INTERNET)
        self.dns.add("www.example.org", "AAAA", topology.INTERNET6)
        self.http.requests.clear()
        self.tcp.clients.clear()
        self.udp.clients.clear()

    def close(self):
        for server in (self.http, self.tcp, self.udp, self.dns):
            server.close()


@pytest.fixture(scope="session")
def _internet(world):
    internet = Internet(world.outside)
    yield internet
    internet.close()


@pytest.fixture
def internet(_internet):
    _internet.reset()
    yield _internet


@pytest.fixture
def outside(world, internet):
    return world.outside


@pytest.fixture
def lan(world):
    return world.lan


class _Machines:
    """The machine of a module, made anew when a test left it dirty.

    clean: what it looked like when the last test was over and nothing was left; the next test begins there.
    """

    def __init__(self, world):
        self.world = world
        self.host = None
        self.clean = None

    def get(self):
        if self.host is None:
            self.host = Host(self.world)
        return self.host

    def spoiled(self):
        if self.host is not None:
            self.host.destroy()
        self.host = None
        self.clean = None


@pytest.fixture(scope="module")
def _machines(world):
    machines = _Machines(world)
    yield machines
    machines.spoiled()


@pytest.fixture
def machine(_machines, request):
    """The host before moatd was ever started; everything has to be like now when the test is over."""
    host = _machines.get()
    bridge_nf = request.node.callspec.params.get("bridge_nf") if hasattr(request.node, "callspec") else None
    host.before = _machines.clean or host.trace()
    for name in ("iptables", "ip6tables", "arptables"):
        key = f"bridge/bridge-nf-call-{name}"
        host.before.state["sysctl"][key] = host.sysctl(key, 1 if bridge_nf is None else bridge_nf)
    request.node.moat_host = host
    failed = True
    try:
        yield host
        _machines.clean = finish(host)
        failed = False
    finally:
        if failed:
            _machines.spoiled()


@pytest.fixture
def host(machine, internet):
    machine.start()
    yield machine


def finish(host):
    """End the test's commands, tear down, and compare with what was before. Says all that is wrong at once.

    Returns the look (Trace) of the machine that was found to be as it was.
    """
    wrong = []

    def attempt(function):
        try:
            function()
        except (AssertionError, OSError) as error:
            wrong.append(str(error))

    wrong += host.complaints()
    for connection in list(host._connections):
        connection.close()
    host.end_processes()
    attempt(lambda: tear_down(host))
    host.drop_connections()
    wrong += [text for text in host.complaints() if text not in wrong]

    after = None

    def compare():
        nonlocal after
        strays = [f"{pid} {netns.process_name(pid)}" for pid in host.strays()]
        if strays:
            return [f"left behind: process {text}" for text in strays]
        after = host.trace()
        return host.before.differences(after)

    try:
        wait.wait_for(lambda: not compare(), 3, every=0.05)
    except AssertionError:
        wrong.append("after moat teardown the host is not as it was:\n  " + "\n  ".join(compare()))
    wrong += [f"in the machine's own namespace: {text}" for text in trace.root_leftovers()]
    host.daemons = []
    assert not wrong, "\n".join(wrong)
    return after


def tear_down(host):
    """moat teardown --yes on a running moatd, which ends with it. What was torn down by the test itself is left so."""
    if host.daemon is None:
        return
    if not host.daemon.running() and os.path.exists(os.path.join(host.state_dir, "moat.db")):
        host.start()
    if host.daemon.running():
        host.moat("teardown", "--yes")
        host.stop()
    host.daemon = None
    if os.path.exists(host.config_path):
        os.unlink(host.config_path)
