# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd's file-descriptor store, played by the test: the name service's sockets come through the death of everything."""

import array
import fcntl
import os
import select
import signal
import socket

import pytest

import daemon
import dns
from netns import kill
from wait import PATIENCE, wait_for


class Manager:
    """What systemd does for moatd.service: its socket, READY, and the store."""

    def __init__(self, machine):
        self.machine = machine
        self.directory = machine.temporary("manager")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.makedirs(machine.run_dir, exist_ok=True)
        self.listener.bind(machine.socket_path)
        self.listener.listen(8)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(self.directory, "notify"))
        self.notify.setblocking(False)
        self.store = {}
        self.child = None

    def start(self):
        passed = [("moatd.socket", self.listener.fileno()), *self.store.items()]
        names = ":".join(name for name, _ in passed)
        script = "".join(f'exec {3 + i}<&"${i + 1}"; ' for i in range(len(passed)))
        script += f'shift {len(passed)}; export LISTEN_PID=$$ LISTEN_FDS={len(passed)} LISTEN_FDNAMES="{names}"; exec "$@"'
        # Duplicates far above those that the script fills.
        copies = [os.dup(fd) for _, fd in passed]
        high = [self._move_up(fd) for fd in copies]
        environment = daemon.sanitizer_environment() | {"NOTIFY_SOCKET": os.path.join(self.directory, "notify")}
        self.child = self.machine.popen("bash", "-c", script, "bash", *map(str, high), daemon.binary("moatd"), *self.machine.arguments(),
                                        pass_fds=tuple(high), env=environment)
        for fd in high:
            os.close(fd)
        self.ready = False
        self.machine.drop_connections()
        wait_for(lambda: self.read() and self.ready, 10, "READY")

    @staticmethod
    def _move_up(fd):
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD, 200)
        os.close(fd)
        return moved

    def read(self):
        """Takes in what moatd has said."""
        while True:
            try:
                data, ancillary, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(16 * 4))
            except BlockingIOError:
                return True
            fds = array.array("i")
            for _, _, raw in ancillary:
                fds.frombytes(raw)
            words = dict(line.split("=", 1) for line in data.decode().split("\n") if "=" in line)
            self.ready |= words.get("READY") == "1"
            if words.get("FDSTORE") == "1":
                assert words["FDPOLL"] == "0" and len(fds) == 1
                name = words["FDNAME"]
                if name in self.store and self._same(self.store[name], fds[0]):
                    os.close(fds[0])
                else:
                    self.forget(name)
                    self.store[name] = fds[0]
            elif words.get("FDSTOREREMOVE") == "1":
                self.forget(words["FDNAME"])
            else:
                assert not fds

    @staticmethod
    def _same(one, other):
        return os.fstat(one).st_ino == os.fstat(other).st_ino

    def forget(self, name):
        if name in self.store:
            os.close(self.store.pop(name))

    def names(self):
        self.read()
        return set(self.store)

    def close(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            self.child.wait(10)
        for name in list(self.store):
            self.forget(name)
        self.listener.close()
        self.notify.close()


@pytest.fixture
def manager(machine, internet):
    manager = Manager(machine)
    manager.start()
    yield manager
    if manager.child.poll() is not None:
        manager.start()
    machine.call("system.teardown")
    manager.child.wait(10)
    manager.close()
    if os.path.exists(machine.socket_path):
        os.unlink(machine.socket_path)
    if os.path.exists(machine.run_dir):
        os.rmdir(machine.run_dir)  # the manager made it
    machine.drop_connections()
    machine.start()


def test_the_sockets_outlive_moatd_and_its_worker(manager, machine):
    """A query that comes while neither runs is answered by the next ones."""
    assert manager.names() == {"moat-dns-udp-10.88.0.1", "moat-dns-tcp-10.88.0.1"}
    web = machine.attach_guest("web")
    assert dns.ask(web, web.gateway, "web").data == [web.ip_address]
    worker = machine.call("system.status")["dns_pid"]
    manager.child.send_signal(signal.SIGKILL)
    manager.child.wait(10)
    kill(worker, 9)
    with web.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, web.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        sock.settimeout(10 * PATIENCE)
        sock.connect((web.gateway, 53))
        wait_for(lambda: not os.path.exists(f"/proc/{worker}/exe"), 5, "the worker's end")
        sock.send(dns.query_bytes("web"))
        stream.settimeout(10 * PATIENCE)
        stream.connect((web.gateway, 53))
        request = dns.query_bytes("web")
        stream.sendall(len(request).to_bytes(2, "big") + request)
        manager.start()
        assert dns.Answer(sock.recv(1000)).data == [web.ip_address], "a query that came meanwhile is lost"
        assert dns.Answer(dns.receive_tcp(stream)).data == [web.ip_address], "a connection that came meanwhile is lost"
    assert manager.names() == {"moat-dns-udp-10.88.0.1", "moat-dns-tcp-10.88.0.1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_waits_for_moatd_does_not_start_it(manager, machine, number):
    """A connection would make systemd start what an administrator has stopped; the next moatd is found all the same."""
    guest = machine.run_guest("web")
    machine.drop_connections()
    manager.child.send_signal(number)
    manager.child.wait(10)
    assert not select.select([manager.listener], [], [], 1.5 * PATIENCE)[0], "somebody has connected"
    manager.start()
    machine.moat("detach", "web")
    outcome = guest.job.finish()
    assert outcome.code == 128 + signal.SIGTERM and "is gone" in outcome.err, outcome


def test_the_store_follows_the_networks(manager, machine):
    machine.call("network.create", name="six", subnet="10.9.0.0/24", subnet6="fd00:9::/64")
    more = {f"moat-dns-{p}-{a}" for p in ("udp", "tcp") for a in ("10.9.0.1", "fd00_9__1")}
    default = {"moat-dns-udp-10.88.0.1", "moat-dns-tcp-10.88.0.1"}
    wait_for(lambda: manager.names() == default | more, 5, lambda: f"the new sockets in the store: {manager.names()}")
    machine.call("network.create", name="quiet", dns=False)
    manager.child.terminate()
    manager.child.wait(10)
    manager.start()
    assert manager.names() == default | more
    machine.call("network.remove", name="six")
    wait_for(lambda: manager.names() == default, 5, lambda: f"the sockets to leave the store: {manager.names()}")


def test_what_nobody_needs_leaves_the_store(manager, machine):
    """A network that is gone when moatd comes back, and a descriptor of somebody else."""
    with machine.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
        manager.child.terminate()
        manager.child.wait(10)
        manager.store["moat-dns-udp-10.7.7.7"] = os.dup(stray.fileno())
        manager.start()
        wait_for(lambda: "moat-dns-udp-10.7.7.7" not in manager.names(), 5, "the stray socket to go")
