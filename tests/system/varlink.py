# SPDX-License-Identifier: GPL-2.0-or-later
"""A Varlink client (varlink.org) in a namespace: JSON texts that end with a NUL, over a Unix socket."""

import json
import os
import select
import subprocess

import wait

# Lines here, texts with a NUL there: the socket says whose process is connected, so the process is in the namespace.
_BRIDGE = r"""
import os, select, socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
print("connected", flush=True)
while True:
    for source in select.select([0, peer], [], [])[0]:
        data = os.read(0, 65536) if source == 0 else peer.recv(65536)
        if not data:
            sys.exit()
        if source == 0:
            peer.sendall(data.replace(b"\n", b"\0"))
        else:
            os.write(1, data.replace(b"\0", b"\n"))
"""


class Refused(Exception):
    """No connection."""


class Client:
    def __init__(self, net, path, *prefix):
        self.buffer = b""
        self.process = net.popen(*prefix, "/usr/bin/python3", "-Bc", _BRIDGE, path, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if self._line(5) != b"connected":
            self.close()
            raise Refused(path)

    def _line(self, timeout):
        """Without its end; None when the connection has ended."""
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], timeout * wait.PATIENCE)
            assert ready, "nothing came"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def call(self, method, more=False, **parameters):
        self.send(json.dumps({"method": method, "parameters": parameters, **({"more": True} if more else {})}).encode() + b"\n")
        return self.reply()

    def reply(self, timeout=5):
        line = self._line(timeout)
        return None if line is None else json.loads(line)

    def close(self):
        self.process.kill()
        self.process.communicate()
