# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd-resolved asks moat for the names of guests: a real one, with a bus of its own, in the test's host."""

import glob
import subprocess

import pytest

import compared
from wait import wait_for

PACKAGES = ("systemd-resolved", "dbus-daemon", "libdbus-1-3", "libapparmor1", "libexpat1")
BUS = """<busconfig><type>system</type><user>root</user><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
</policy></busconfig>"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """systemd-resolved and a bus daemon, unpacked and not installed: installing would change the machine's resolver."""
    with compared.unpacked(tmp_path_factory, "resolved", PACKAGES) as directory:
        yield directory


class Resolved:
    def __init__(self, machine, programs):
        self.machine, self.programs = machine, programs
        self.libraries = {"LD_LIBRARY_PATH": ":".join(glob.glob(f"{programs}/usr/lib/*-linux-gnu") + glob.glob(f"{programs}/lib/*-linux-gnu"))}
        self.processes = []
        own = machine.temporary("resolved")
        machine.run("sh", "-ec", f"""
            (cat /etc/passwd; echo systemd-resolve:x:64990:64990::/:/bin/false) > {own}/passwd
            (cat /etc/group; echo systemd-resolve:x:64990:) > {own}/group
            mount --bind {own}/passwd /etc/passwd
            mount --bind {own}/group /etc/group
            mkdir -p /run/dbus /run/systemd/resolve && chown 64990:64990 /run/systemd/resolve""")
        machine.write("/run/dbus/bus.conf", BUS)
        self.bus = self._spawn(f"{programs}/usr/bin/dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile")
        wait_for(lambda: machine.run("test", "-S", "/run/dbus/system_bus_socket", check=False).returncode == 0, 5, "the bus")
        self.start()

    def _spawn(self, *command):
        process = self.machine.popen(*command, env=self.libraries, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def start(self):
        self.resolved = self._spawn(f"{self.programs}/lib/systemd/systemd-resolved")

    def stop(self):
        self.resolved.kill()
        self.resolved.wait()

    def ctl(self, *arguments):
        outcome = self.machine.run(f"{self.programs}/usr/bin/resolvectl", "--no-pager", *arguments, env=self.libraries, check=False)
        return f"{outcome.stdout}{outcome.stderr}"

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()
        self.machine.run("rm", "-rf", "/run/dbus", "/run/systemd")
        self.machine.run("umount", "/etc/passwd", "/etc/group")
        # systemd-resolved speaks TCP with fast open, for which the kernel drew a key.
        self.machine.run("sh", "-c", "echo 00000000-00000000-00000000-00000000 > /proc/sys/net/ipv4/tcp_fastopen_key")


@pytest.fixture
def resolved(machine, internet, programs):
    resolved = Resolved(machine, programs)
    yield resolved
    resolved.close()


def test_the_host_resolves_guests(resolved, machine):
    machine.start()
    web = machine.attach_guest("web")

    def resolves():
        return web.ip_address in resolved.ctl("query", "web.moat.internal")

    wait_for(resolves, 15, lambda: f"the guest's name: {resolved.ctl('query', 'web.moat.internal')} {resolved.ctl('status')}")
    assert "web.moat.internal" in resolved.ctl("query", web.ip_address)
    status = resolved.ctl("status", "moat0")
    assert "~moat.internal" in status and "~88.10.in-addr.arpa" in status and "10.88.0.1" in status and "-DefaultRoute" in status, status
    assert "systemd-resolved asks us" in machine.moat("doctor", check=False).out
    # Another network, and its end.
    machine.call("network.create", name="blue", subnet="10.9.0.0/23", subnet6="fd00:9::/64")
    blue = machine.bridge_of("blue")
    wait_for(lambda: "10.9.0.1" in resolved.ctl("dns", blue), 5, "the second network's server")
    domains = resolved.ctl("domain", blue)
    assert "~0.9.10.in-addr.arpa" in domains and "~1.9.10.in-addr.arpa" in domains and "~0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa" in domains, domains
    # It is restarted, and knows nothing then.
    resolved.stop()
    resolved.start()
    wait_for(resolves, 15, "the guest's name after a restart of systemd-resolved")
    # The bridge is made anew, with another number.
    machine.run("ip", "link", "del", blue)
    wait_for(lambda: "10.9.0.1" in resolved.ctl("dns", blue), 15, "the server of the bridge that was made anew")
    # moatd is restarted.
    machine.restart()
    wait_for(resolves, 15, "the guest's name after a restart of moatd")
    assert "web" in machine.guest_names()


def test_it_may_be_left_alone(resolved, machine):
    machine.configure("[dns]\nresolved = no\n")
    machine.start()
    machine.attach_guest("web")
    wait_for(lambda: "Link" in resolved.ctl("status", "moat0"), 10, "systemd-resolved")
    assert "moat.internal" not in resolved.ctl("status")
    out = machine.moat("doctor", check=False).out
    assert '"nameserver 10.88.0.1"' in out and '"search moat.internal"' in out

