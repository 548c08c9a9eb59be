# SPDX-License-Identifier: GPL-2.0-or-later
"""A host: a machine of the little world with its own files, its own moatd, and somebody who types commands."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading

import daemon
import rpc
import topology
import trace
import wait
from netns import (MARK, MARK_VALUE, Namespace, Net, all_pids, alive, environment, kill_quietly, process_environment)

RESOLV_CONF = f"nameserver {topology.INTERNET_DNS}\nsearch corp.example\n"


class Outcome:
    """How a command ended, as its user saw it."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError:
            raise AssertionError(f"not one JSON document:\n{self}") from None

    @property
    def line(self):
        return self.out.strip()

    def __str__(self):
        return f"$ {' '.join(self.argv)}\n{self.out}{self.err}[exit {self.code}]"


class Job:
    """A command that goes on running."""

    def __init__(self, process, argv):
        self.process = process
        self.argv = argv
        self.pid = process.pid

    def send(self, signal_number):
        self.process.send_signal(signal_number)

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def finish(self, timeout=10.0):
        """Wait for the end; the Outcome."""
        try:
            out, err = self.process.communicate(timeout=timeout * wait.PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"still running after {timeout:g} s:\n"
                                 f"{Outcome(self.argv, 'killed', out or '', err or '')}") from None
        return Outcome(self.argv, self.process.returncode, out or "", err or "")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


class Guest(Net):
    """A guest with a namespace: what a user knows of it, and a way into its network for servers and clients."""

    def __init__(self, host, name, job=None, space=None):
        self.host = host
        self.name = name
        self.job = job
        self.space = space
        self.info = host.call("guest.get", name=name)
        self.pid = self.info["pid"]
        super().__init__(space.net_path if space else f"/proc/{self.pid}/ns/net")

    def endpoint(self, network=None):
        for endpoint in self.info["endpoints"]:
            if network in (None, endpoint["network"]):
                return endpoint
        raise AssertionError(f"{self.name} is not on {network}: {self.info}")

    @property
    def ip_address(self):
        return self.endpoint()["ip"]

    @property
    def gateway(self):
        return self.endpoint()["gateway"]

    def refresh(self):
        self.info = self.host.call("guest.get", name=self.name)
        return self

    def ports(self):
        return self.refresh().info["ports"]

    def exec(self, *args, **kwargs):
        return self.host.moat("exec", self.name, "--", *args, **kwargs)

    def gone(self):
        return not any(g["name"] == self.name for g in self.host.call("guest.list"))

    def end(self):
        """End it as its user would; return when moat says that it is gone."""
        if self.job:
            self.job.send(signal.SIGTERM)
            self.job.finish()
        else:
            self.host.call("guest.detach", name=self.name)
        wait.wait_for(self.gone, 3, f"{self.name} to be gone from moat ps")


class Host(Namespace):
    """The machine. It has its own /etc, /run and /var/lib; state, run-time files and configuration lie apart."""

    def __init__(self, world, name="host", address=topology.HOST, address6=topology.HOST6):
        self.world = world
        self.name = name
        self.address = address
        self.address6 = address6
        self.directory = world.directory_for(name)
        self.state_dir = os.path.join(self.directory, "state")
        self.run_dir = os.path.join(self.directory, "run")
        self.etc_dir = os.path.join(self.directory, "etc")
        self.config_path = os.path.join(self.directory, "moat.conf")
        self.socket_path = os.path.join(self.run_dir, "moat.sock")
        self.daemon = None
        self.daemons = []
        self._jobs = []
        self._guest_spaces = []
        self._connections = []
        self._rpc = None
        self._lock = threading.Lock()
        self._boots = 0
        self._open()

    def _open(self):
        super().__init__(self.name, with_mounts=True)
        self._boots += 1
        self._mount()
        self.uplink_port = self.world.plug(self, [f"{self.address}/24"], [f"{self.address6}/64"])
        self.write("/etc/resolv.conf", RESOLV_CONF)

    def _mount(self):
        """Private /etc, /var/lib, /run, /sys and boot id: what is written stays here and can be looked at."""
        parts = {}
        for part in ("etc", "var-lib"):
            for kind in ("", "-work"):
                path = os.path.join(self.directory, part + kind)
                shutil.rmtree(path, ignore_errors=True)
                os.makedirs(path)
                parts[part + kind] = path
        boot = os.path.join(self.directory, "boot_id")
        with open(boot, "w", encoding="ascii") as file:
            file.write(f"{self._boots:08x}-0000-4000-8000-{os.getpid():012x}\n")
        cgroup = os.path.join(self.directory, "cgroup")
        os.makedirs(cgroup, exist_ok=True)
        self.run("sh", "-ec", f"""
            ! test -d /run/netns || umount -l -R /run/netns 2>/dev/null || true
            mount -t overlay -o lowerdir=/etc,upperdir={parts['etc']},workdir={parts['etc-work']} etc /etc
            mount -t overlay -o lowerdir=/var/lib,upperdir={parts['var-lib']},workdir={parts['var-lib-work']} lib /var/lib
            mount -t tmpfs -o mode=755 run /run
            mount --rbind /sys/fs/cgroup {cgroup}
            mount -t sysfs sysfs /sys
            mount --rbind {cgroup} /sys/fs/cgroup
            umount -l {cgroup}
            mount --bind {boot} /proc/sys/kernel/random/boot_id
        """)

    # Files

    def path(self, path):
        """A path of this host as the test process can open it."""
        return f"/proc/{self.pid}/root{path}"

    def write(self, path, text):
        with open(self.path(path), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, path):
        with open(self.path(path), encoding="utf-8") as file:
            return file.read()

    def configure(self, text):
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(text)

    def temporary(self, name):
        """A fresh directory that guests of any user can reach."""
        path = os.path.join(self.directory, "tmp", name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        os.chmod(os.path.dirname(path), 0o755)
        return path

    # The daemon

    def arguments(self):
        args = ["--state-dir", self.state_dir, "--run-dir", self.run_dir]
        return args + ["--config", self.config_path] if os.path.exists(self.config_path) else args

    def start(self, *extra, env=None, ready=True):
        assert not (self.daemon and self.daemon.running()), "moatd runs already"
        self.daemon = daemon.Daemon(self, self.arguments() + list(extra), os.path.join(self.directory, "moatd.log"),
                                    os.path.join(self.directory, "notify"), env)
        self.daemons.append(self.daemon)
        if ready:
            self.daemon.wait_ready()
        return self.daemon

    def stop(self):
        """SIGTERM, or just wait where it is ending already, as after a teardown."""
        self.drop_connections()
        self.daemon.stop()
        self.daemon.close()

    def crash(self):
        self.drop_connections()
        self.daemon.kill()
        self.daemon.close()

    def restart(self, crash=False, **kwargs):
        if crash:
            self.crash()
        else:
            self.stop()
        return self.start(**kwargs)

    def second_daemon(self, *arguments, env=None):
        """One more moatd, by the arguments alone; for refusals."""
        process = daemon.Daemon(self, list(arguments) or self.arguments(), os.path.join(self.directory, "second.log"),
                                os.path.join(self.directory, "notify2"), env)
        self.daemons.append(process)
        return process

    def reboot(self, start=True):
        """All processes, links, rules and run-time files are gone; the disk stays."""
        self.power_off()
        self.power_on()
        if start:
            self.start()

    def power_on(self):
        """The machine as it comes up, before moatd; what it looks like now is what teardown has to leave."""
        self._open()
        self.before = self.trace()
        files = self.before.state["file"]
        for path in [path for path in files if path.startswith(self.state_dir)]:
            del files[path]

    def power_off(self):
        self.drop_connections()
        if self.daemon:
            self.daemon.kill()
            self.daemon.close()
        self.end_processes()
        self.close()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    # Commands

    def command(self, args, user=None, groups=None):
        argv = [daemon.binary("moat"), *map(os.fspath, map(str, args))]
        if user is not None:
            supplement = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
            argv = ["setpriv", "--reuid", str(user), "--regid", str(user), *supplement, "--", *argv]
        return argv

    def _environment(self, env):
        extra = daemon.sanitizer_environment()
        extra["MOAT_SOCKET"] = self.socket_path
        clean = environment(extra)
        for key, value in (env or {}).items():
            if value is None:
                clean.pop(key, None)
            else:
                clean[key] = value
        return clean

    def moat(self, *args, check=True, timeout=60.0, input=None, env=None, cwd="/", user=None, groups=None):
        """Run a command to its end; by default it has to succeed."""
        shown = ["moat", *map(str, args)]
        if "teardown" in shown and self.daemon:
            self.daemon.expected_end = True
        process = self.popen(*self.command(args, user, groups), cwd=cwd, clean_env=self._environment(env),
                             stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        job = Job(process, shown)
        try:
            out, err = process.communicate(input, timeout * wait.PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"still running after {timeout:g} s:\n{Outcome(shown, 'killed', out, err)}") from None
        finally:
            job.close()
        outcome = Outcome(shown, process.returncode, out, err)
        assert not daemon.SANITIZER.search(err), str(outcome)
        if check:
            assert outcome.code == 0, str(outcome)
        return outcome

    def refused(self, *args, code=1, says=(), **kwargs):
        """A command that has to fail: the exit code, one line "moat: …", and the words in it."""
        outcome = self.moat(*args, check=False, **kwargs)
        assert outcome.code == code, f"exit {code} was expected:\n{outcome}"
        if code == 1:
            lines = outcome.err.strip().splitlines()
            assert len(lines) == 1 and lines[0].startswith("moat: "), f"not one line \"moat: …\":\n{outcome}"
        for word in [says] if isinstance(says, str) else says:
            assert str(word) in outcome.err, f"does not say {word!r}:\n{outcome}"
        return outcome

    def spawn(self, *args, env=None, cwd="/", user=None, groups=None, **kwargs):
        """Start a command that goes on running; ended with the test if need be."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options.update(kwargs)
        process = self.popen(*self.command(args, user, groups), cwd=cwd, clean_env=self._environment(env), **options)
        job = Job(process, ["moat", *map(str, args)])
        self._jobs.append(job)
        return job

    # Guests

    def guest_names(self):
        return [guest["name"] for guest in self.call("guest.list")]

    def run_guest(self, name, *options, command=("sleep", "infinity"), timeout=5.0, **kwargs):
        """moat run in the background; returns when the guest is there."""
        job = self.spawn("run", "-n", name, *options, "--", *command, **kwargs)

        def there():
            if job.process.poll() is not None:
                raise AssertionError(f"moat run ended:\n{job.finish()}")
            try:
                return self.call("guest.get", name=name)["state"] == "running"
            except rpc.RpcError:
                return False

        wait.wait_for(there, timeout, f"guest {name} to run")
        return Guest(self, name, job=job)

    def guest_space(self, title="guest"):
        """A namespace that somebody else made, to be attached."""
        space = Namespace(title)
        space.ip("link", "set", "lo", "down")
        self._guest_spaces.append(space)
        return space

    def attach_guest(self, name, *options, network="default"):
        space = self.guest_space(name)
        self.moat("attach", name, "--network", network, "--pid", space.pid, *options)
        return Guest(self, name, space=space)

    # RPC

    def rpc(self, **kwargs):
        """A fresh connection, closed with the test."""
        connection = rpc.Rpc(self.socket_path, **kwargs)
        self._connections.append(connection)
        return connection

    def call(self, method, **params):
        """A call on the connection that tests share; safe from several threads."""
        with self._lock:
            if self._rpc is None:
                self._rpc = rpc.Rpc(self.socket_path)
            try:
                return self._rpc.call(method, **params)
            except (rpc.Closed, TimeoutError, OSError):
                self._rpc.close()
                self._rpc = None
                raise

    def error(self, method, **params):
        try:
            result = self.call(method, **params)
        except rpc.RpcError as error:
            return error
        raise AssertionError(f"{method} {params} was accepted: {result}")

    def drop_connections(self):
        with self._lock:
            if self._rpc:
                self._rpc.close()
            self._rpc = None
        for connection in self._connections:
            connection.close()
        self._connections = []

    # What the administrator sees

    def trace(self, **kwargs):
        directories = [self.state_dir, self.run_dir, self.etc_dir, self.path("/run"), os.path.join(self.directory, "var-lib")]
        found = trace.Trace(self, directories, mounts_of=self.pid, **kwargs)
        prefix = self.path("")
        found.state["file"] = {path.removeprefix(prefix): value for path, value in found.state["file"].items()}
        return found

    def kernel(self):
        """The part that is moat's work in the kernel, for "nothing changed"."""
        return trace.Trace(self, processes=False)

    def bridge_of(self, network):
        return self.call("network.get", name=network)["bridge"]

    def doctor_text(self):
        return self.moat("doctor", check=False).out

    # The end

    def end_processes(self):
        """End what the test has started here and what those started, guests' commands included."""
        for job in self._jobs:
            job.close()
        self._jobs = []
        for space in self._guest_spaces:
            space.close()
        self._guest_spaces = []

    def strays(self):
        """Processes with this run's mark whose socket path is ours: what moat run started and did not end."""
        found = []
        for pid in all_pids():
            env = process_environment(pid)
            if env.get(MARK) == MARK_VALUE and env.get("MOAT_SOCKET") == self.socket_path and alive(pid):
                found.append(pid)
        return found

    def complaints(self):
        return [text for process in self.daemons for text in process.complaints()]

    def destroy(self):
        self.drop_connections()
        for process in {*self.daemons, self.daemon} - {None}:
            process.expected_end = True
            process.close()
        self.end_processes()
        for pid in self.strays():
            kill_quietly(pid)
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def intent(host):
    """What the store has, as the API tells it."""
    return {"networks": host.call("network.list"), "guests": host.call("guest.list"), "ports": host.call("port.list"),
            "names": host.call("dns.list")}


# What a port that was routed for a moment keeps when it is back in its bridge, where neither has an effect.
_WITHOUT_EFFECT = re.compile(r"changed: sysctl ipv[46]/(neigh/mv\d+/proxy_delay|conf/mv\d+/accept_ra):")


def settled(host, before, what):
    """Wait until the kernel looks like before; deletions go on behind."""
    def differences():
        return [line for line in before.differences(host.kernel()) if not _WITHOUT_EFFECT.match(line)]

    wait.wait_for(lambda: not differences(), 3, lambda: what + ":\n  " + "\n  ".join(differences()), every=0.03)
