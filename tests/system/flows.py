# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic that runs while something happens, and that counts what it loses."""

import socket
import struct
import threading
import time

import servers
import wait

_TCPI_TOTAL_RETRANS = 100  # offset in struct tcp_info


class UdpFlow:
    """Sends a numbered datagram every few milliseconds to a servers.UdpServer; every one has to be answered."""

    def __init__(self, net, address, port, interval_s=0.002):
        self.socket = net.socket(servers.family_of(address), socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.socket.settimeout(0.05)
        self.interval_s = interval_s
        self.sent = 0
        self.answered = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True), threading.Thread(target=self._receive, daemon=True)]
        for thread in self._threads:
            thread.start()
        wait.wait_for(lambda: len(self.answered) > 5, 3, f"the first answers from {address}:{port}/udp")

    def _send(self):
        while not self._stop.wait(self.interval_s):
            try:
                self.socket.send(b"%d" % self.sent)
                self.sent += 1
            except OSError:
                self.sent += 1

    def _receive(self):
        deadline = None
        while deadline is None or (time.monotonic() < deadline and len(self.answered) < self.sent):
            if self._stop.is_set() and deadline is None:
                deadline = time.monotonic() + 2
            try:
                self.answered.add(int(self.socket.recv(1000).rsplit(b" ", 1)[1]))
            except OSError:
                continue

    def finish(self):
        """How many were lost."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.socket.close()
        return self.sent - len(self.answered)


class TcpFlow:
    """Talks to a servers.TcpServer all the time; not one segment may have to be sent again."""

    def __init__(self, net, address, port):
        self.socket = servers.connect(net, address, port)
        servers.read_line(self.socket)
        self.rounds = 0
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self):
        payload = b"x" * 1000
        try:
            while not self._stop.wait(0.002):
                self.socket.sendall(payload)
                left = len(payload)
                while left:
                    part = self.socket.recv(left)
                    if not part:
                        raise ConnectionError("closed by the other side")
                    left -= len(part)
                self.rounds += 1
        except OSError as error:
            self.error = error

    def finish(self):
        """How many segments had to be sent again; raises what broke the connection."""
        self._stop.set()
        self._thread.join()
        try:
            if self.error:
                raise AssertionError(f"the connection broke after {self.rounds} rounds: {self.error}")
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return struct.unpack_from("I", info, _TCPI_TOTAL_RETRANS)[0]
        finally:
            self.socket.close()


class Flows:
    """with Flows([...]): nothing of them may be lost until the block ends."""

    def __init__(self, flows):
        self.flows = flows

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        lost = {}
        for name, flow in self.flows.items():
            try:
                lost[name] = flow.finish()
            except AssertionError as error:
                lost[name] = str(error)
        if kind is None:
            bad = {name: count for name, count in lost.items() if count}
            assert not bad, f"lost or sent again: {bad}"
        return False
