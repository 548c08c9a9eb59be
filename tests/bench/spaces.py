# SPDX-License-Identifier: GPL-2.0-or-later
"""Namespaces that play hosts, the programs in them, and a host with its moatd."""

import ctypes
import os
import subprocess
import sys
import threading
import time

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: waited in vain for {what}")
        time.sleep(0.01)


def execute(arguments, text="", env=None):
    """What a program writes; its failure ends the bench."""
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {arguments}: {(done.stderr.strip() or done.stdout.strip())[:500]}")
    return done.stdout


class Space:
    """A network namespace, held by a sleeping process."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
                                       stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.pid = self.holder.pid
        self.run("ip", "link", "set", "lo", "up")

    def enter(self, *command):
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]

    def run(self, *command, text=None):
        done = subprocess.run(self.enter(*command), input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(command)}: {(done.stderr.strip() or done.stdout.strip())[:500]}")
        return done.stdout

    def popen(self, *command, **options):
        return subprocess.Popen(self.enter(*command), **options)

    def sysctl(self, **values):
        for key, value in values.items():
            self.run("sysctl", "-qw", f"{key.replace('__', '.')}={value}")

    def inside(self, function):
        """The result of function(), called by a thread that is in the namespace, and its children with it."""
        outcome = []

        def work():
            try:
                fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
                if libc.setns(fd, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                os.close(fd)
                outcome.append(function())
            except BaseException as error:  # handed on to the caller
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def timed(self, count, command):
        """Wall times in ms of `count` runs of command(i), each started directly from within the namespace."""

        def work():
            times = []
            for i in range(count):
                arguments = command(i)
                start = time.monotonic()
                execute(arguments)
                times.append((time.monotonic() - start) * 1e3)
            return times

        return self.inside(work)

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


def connect(one, name_one, other, name_other, address_one, address_other):
    """A veth pair between two spaces; addresses with prefix, or None."""
    one.run("ip", "link", "add", name_one, "up", "type", "veth", "peer", "name", name_other,
            "netns", str(other.pid))
    other.run("ip", "link", "set", name_other, "up")
    if address_one:
        one.run("ip", "address", "add", address_one, "dev", name_one)
    if address_other:
        other.run("ip", "address", "add", address_other, "dev", name_other)


def namespaces_settle(space):
    """Waits until the kernel has taken down all namespaces that have ended: it does so in their order, behind."""
    last = Space()
    connect(space, "last", last, "last", None, None)
    last.close()
    wait_for("namespaces to go", lambda: "last" not in space.run("ip", "-o", "link", "show"))


class Helper:
    """One of the C programs: a line in, a line of numbers out."""

    def __init__(self, space, *command):
        self.process = space.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"bench: the helper ended at: {line}")
        return answer

    def numbers(self, line):
        return [int(word) for word in self.ask(line).split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Moat:
    """A host with its moatd."""

    def __init__(self, tools, directory, name, more=""):
        """more: what else its configuration says."""
        self.space = Space()
        self.tools = tools
        self.directory = os.path.join(directory, name)
        os.mkdir(self.directory)
        self.socket = os.path.join(self.directory, "run", "moat.sock")
        self.log = open(os.path.join(self.directory, "log"), "wb")
        config = os.path.join(self.directory, "moat.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write("[network]\ndefault_subnet = 10.88.0.0/16\n" + more)
        self.daemon = self.space.popen(tools["moatd"], "--config", config,
                                       "--state-dir", os.path.join(self.directory, "state"),
                                       "--run-dir", os.path.join(self.directory, "run"), stderr=self.log)
        wait_for("moatd", lambda: self.daemon.poll() is not None or self.answers())
        if self.daemon.poll() is not None:
            with open(self.log.name, encoding="utf-8", errors="replace") as file:
                raise SystemExit(f"bench: moatd ended: {file.read().strip()}")

    def answers(self):
        return os.path.exists(self.socket) and subprocess.run(
            self.space.enter(*self.moat("status")), capture_output=True, check=False).returncode == 0

    def moat(self, *arguments):
        return [self.tools["moat"], "--socket", self.socket, *arguments]

    def call(self, *arguments):
        return self.space.run(*self.moat(*arguments))

    def client(self):
        return Helper(self.space, self.tools["bench_attach"], self.socket)

    def close(self):
        self.call("teardown", "--yes")
        self.daemon.terminate()
        self.daemon.wait()
        self.log.close()
        self.space.close()
