# SPDX-License-Identifier: GPL-2.0-or-later
"""A JSON-RPC 2.0 client for moatd's socket: the polite calls, and raw lines for what no polite client sends."""

import array
import collections
import json
import os
import select
import socket
import time

import wait


class RpcError(Exception):
    """The error member of an answer."""

    def __init__(self, method, error):
        super().__init__(f"{method}: {json.dumps(error)}")
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data") or {}
        self.reason = self.data.get("reason")
        self.field = self.data.get("field")


class Closed(Exception):
    """The daemon closed the connection."""


class Rpc:
    """One connection. Lines in both directions; descriptors received wait in .fds."""

    def __init__(self, path, timeout=40.0):
        self.path = path
        self.timeout = timeout * wait.PATIENCE
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.settimeout(self.timeout)
        try:
            # A path through /proc/PID/root may be too long for a socket address; a descriptor's never is.
            directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
            try:
                self.socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            finally:
                os.close(directory)
        except OSError:
            self.socket.close()
            raise
        self.fds = []
        self._buffer = b""
        self._next_id = 0
        self.events = collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    # Lines

    def send_raw(self, data, fds=()):
        if fds:
            sent = self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            data = data[sent:]
        self.socket.sendall(data)

    def send(self, document, fds=()):
        self.send_raw(json.dumps(document).encode() + b"\n", fds)

    def receive_line(self, timeout=None):
        """The next line as bytes; Closed at the end of the stream, TimeoutError where none comes."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("moatd did not answer in time")
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _receive(self):
        room = socket.CMSG_SPACE(16 * 4)
        try:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Closed("moatd reset the connection") from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[:len(payload) - len(payload) % numbers.itemsize])
                self.fds.extend(numbers)
        if not data:
            raise Closed("moatd closed the connection")
        self._buffer += data

    def receive(self, timeout=None):
        return json.loads(self.receive_line(timeout))

    def exchange_raw(self, data, timeout=None):
        """Send bytes as they are; the next document that comes back."""
        self.send_raw(data)
        return self.receive(timeout)

    def silent(self, seconds=0.2):
        """True where nothing comes for so long."""
        if b"\n" in self._buffer:
            return False
        return not select.select([self.socket], [], [], seconds)[0]

    def closed_by_peer(self, timeout=5.0):
        """True where the daemon closes the connection within the time, whatever it says before."""
        deadline = time.monotonic() + timeout
        try:
            while time.monotonic() < deadline:
                self.receive_line(max(0.01, deadline - time.monotonic()))
        except Closed:
            return True
        except (TimeoutError, ConnectionError):
            return False
        return False

    # Calls

    def request(self, method, **params):
        self._next_id += 1
        return {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params}

    def call(self, method, _fds=(), _timeout=None, **params):
        """The result of a method; RpcError where it is refused."""
        request = self.request(method, **params)
        self.send(request, _fds)
        while True:
            answer = self.receive(_timeout)
            if isinstance(answer, dict) and "method" in answer:
                self.events.append(answer["params"])
                continue
            break
        assert answer.get("jsonrpc") == "2.0", answer
        if answer.get("id") is None and "error" in answer:
            raise RpcError(method, answer["error"])  # about the connection, not about this request
        assert answer.get("id") == request["id"], f"answer to another question: {answer}"
        if "error" in answer:
            assert "result" not in answer, f"result and error at once: {answer}"
            raise RpcError(method, answer["error"])
        assert "result" in answer, answer
        return answer["result"]

    def error(self, method, _fds=(), **params):
        """The error of a call that has to be refused."""
        try:
            result = self.call(method, _fds=_fds, **params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} {params} was accepted: {result}")

    # Events

    def subscribe(self):
        assert self.call("events.subscribe") == {}
        return self

    def next_event(self, timeout=5.0):
        if self.events:
            return self.events.popleft()
        answer = self.receive(timeout * wait.PATIENCE)
        assert answer.get("method") == "event" and "id" not in answer, f"not a notification: {answer}"
        return answer["params"]

    def event_where(self, match, timeout=5.0):
        """The first event for which match(event) holds; those before it are dropped."""
        deadline = time.monotonic() + timeout * wait.PATIENCE
        seen = []
        while True:
            left = deadline - time.monotonic()
            try:
                event = self.next_event(max(left, 0.001))
            except TimeoutError:
                raise AssertionError(f"no such event within {timeout:g} s; seen: {seen}") from None
            if match(event):
                return event
            seen.append(event)
