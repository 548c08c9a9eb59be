# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal with somebody in front of it: a pty, a shell with job control, typing and reading."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time

import wait


class Terminal:
    """Runs a program on a pty of its own session. Everything that was shown is in .shown."""

    def __init__(self, net, argv, env, rows=24, columns=80):
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.shown = ""
        self._read = 0
        # setsid makes the pty the controlling terminal, as login does.
        self.process = net.popen("setsid", "--ctty", "--wait", *argv, clean_env=env,
                                 stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def attributes(self):
        return termios.tcgetattr(self.master)

    def type(self, text):
        os.write(self.master, text.encode())

    def _more(self, timeout):
        if not select.select([self.master], [], [], max(timeout, 0))[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return None
        self.shown += data.decode(errors="replace")
        return bool(data)

    def expect(self, pattern, timeout=5.0):
        """Wait until a pattern is shown after what was expected before; the match."""
        deadline = time.monotonic() + timeout * wait.PATIENCE
        while True:
            match = re.compile(pattern).search(self.shown, self._read)
            if match:
                self._read = match.end()
                return match
            left = deadline - time.monotonic()
            more = self._more(left) if left > 0 else False
            if more is None or (not more and left <= 0):
                raise AssertionError(f"the terminal did not show {pattern!r}; it shows:\n{self.shown[self._read:]}")

    def end(self, timeout=5.0):
        """The exit status when the program ends."""
        deadline = time.monotonic() + timeout * wait.PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self._more(0.01)
        try:
            return self.process.wait(0.1)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; the terminal shows:\n{self.shown[self._read:]}") from None

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
