# SPDX-License-Identifier: GPL-2.0-or-later
"""One moatd process: start, readiness, its log, and how it ended."""

import os
import re
import select
import signal
import socket
import subprocess

import wait
from netns import environment, process_state

SANITIZER = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|SUMMARY: \w*Sanitizer|runtime error:"
                       r"|DEADLYSIGNAL")


def build_directory():
    default = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "debug")
    return os.path.abspath(os.environ.get("MOAT_BUILD", default))


def binary(name):
    """The path of a built program; programs may lie at the top of the build directory or in their folder."""
    top = build_directory()
    for folder in ("", "src", "cli", "bin"):
        path = os.path.join(top, folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def sanitizer_environment():
    """Reports go to stderr and end the program with a status of their own."""
    return {
        "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "exitcode=99:detect_leaks=1:abort_on_error=0"),
        "UBSAN_OPTIONS": os.environ.get("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99"),
    }


class Daemon:
    """A moatd in a namespace. The log is a file that outlives restarts; each start adds to it."""

    def __init__(self, space, arguments, log_path, notify_path, env=None, cwd="/"):
        self.log_path = log_path
        self._notify_path = notify_path
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if os.path.exists(notify_path):
            os.unlink(notify_path)
        self._notify.bind(notify_path)
        self._log = open(log_path, "ab")
        self._offset = self._log.tell()
        extra = sanitizer_environment()
        extra["NOTIFY_SOCKET"] = notify_path
        extra.update(env or {})
        self.process = space.popen("setpriv", "--pdeathsig", "KILL", "--", binary("moatd"), *arguments, cwd=cwd,
                                   clean_env=environment(extra), stdin=subprocess.DEVNULL,
                                   stdout=self._log, stderr=self._log)
        self.notified = []
        self._final_log = None
        self.expected_end = False

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        """What this start has logged."""
        if self._final_log is not None:
            return self._final_log
        with open(self.log_path, "rb") as file:
            file.seek(self._offset)
            return file.read().decode(errors="replace")

    def running(self):
        return self.process.poll() is None

    def _take_notifications(self):
        while select.select([self._notify], [], [], 0)[0]:
            self.notified += self._notify.recv(4096).decode(errors="replace").split("\n")

    def wait_ready(self, timeout=30.0):
        """Wait for READY=1, as systemd does."""

        def ready():
            self._take_notifications()
            if "READY=1" in self.notified:
                return True
            if not self.running():
                raise AssertionError(f"moatd ended with {self.process.returncode} before it was ready:\n{self.log()}")
            return False

        wait.wait_for(ready, timeout, lambda: f"READY=1 from moatd; its log:\n{self.log()}")

    def wait_end(self, timeout=10.0):
        """The exit status, negative for a signal."""
        try:
            return self.process.wait(timeout * wait.PATIENCE)
        except subprocess.TimeoutExpired:
            state = process_state(self.pid)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"moatd (state {state}) did not end within {timeout:g} s:\n{self.log()}") from None

    def stop(self, timeout=10.0):
        """SIGTERM, unless it is ending by itself; the exit status has to be 0."""
        if self.running() and not self.expected_end:
            self.process.send_signal(signal.SIGTERM)
        self.expected_end = True
        status = self.wait_end(timeout)
        assert status == 0, f"moatd ended with {status} on SIGTERM:\n{self.log()[-6000:]}"

    def kill(self):
        """SIGKILL: what a crash looks like from outside."""
        self.expected_end = True
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.running():
            self.kill()
        if self._final_log is None:
            self._final_log = self.log()
        self._log.close()
        self._notify.close()
        if os.path.exists(self._notify_path):
            os.unlink(self._notify_path)

    def complaints(self):
        """Why this process must fail a test: sanitizer reports, an end that nobody asked for."""
        found = []
        log = self.log()
        match = SANITIZER.search(log)
        if match:
            found.append("sanitizer report of moatd:\n" + log[max(0, match.start() - 200):match.start() + 6000])
        if not self.running() and not self.expected_end:
            found.append(f"moatd ended by itself with {self.process.returncode}:\n{log[-6000:]}")
        return found
