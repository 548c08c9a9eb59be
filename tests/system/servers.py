# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers and clients that run in threads of the test process, on sockets made inside a namespace.

Each server knows its name and tells every client who it is and whom it sees, so that a test can check both where
a connection ended and whether the client's address was kept.
"""

import http.client
import http.server
import select
import socket
import socketserver
import threading

import wait


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(net, kind, address, port):
    family = family_of(address)
    sock = net.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(256)
    except OSError:
        sock.close()
        raise
    return sock


class _Server:
    def __init__(self, net, kind, address, port, name):
        self.name = name
        self.socket = bound(net, kind, address, port)
        self.port = self.socket.getsockname()[1]
        self.clients = []
        self._wake, self._woken = socket.socketpair()
        self._threads = []
        self._connections = []
        self._start(self._serve)

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _ready(self, sock):
        """True when sock can be read, False when the server is being closed."""
        readable, _, _ = select.select([sock, self._woken], [], [])
        return self._woken not in readable

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self._wake.close()
        for connection in list(self._connections):
            connection.close()
        for thread in self._threads:
            thread.join(5)
        self.socket.close()
        self._woken.close()

    def _serve(self):
        raise NotImplementedError


class TcpServer(_Server):
    """Says "NAME CLIENT-ADDRESS CLIENT-PORT\\n" to each client, then echoes what comes."""

    def __init__(self, net, port, address="0.0.0.0", name="tcp"):
        super().__init__(net, socket.SOCK_STREAM, address, port, name)

    def _serve(self):
        while self._ready(self.socket):
            try:
                connection, client = self.socket.accept()
            except OSError:
                return
            self.clients.append(client[:2])
            self._connections.append(connection)
            self._start(self._echo, connection, client)

    def _echo(self, connection, client):
        try:
            connection.sendall(f"{self.name} {client[0]} {client[1]}\n".encode())
            while self._ready(connection):
                data = connection.recv(65536)
                if not data:
                    break
                connection.sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def to_last(self, data):
        """Sends to the client that came last, unasked."""
        self._connections[-1].sendall(data)


class UdpServer(_Server):
    """Answers each datagram with "NAME CLIENT-ADDRESS CLIENT-PORT DATA"."""

    def __init__(self, net, port, address="0.0.0.0", name="udp"):
        super().__init__(net, socket.SOCK_DGRAM, address, port, name)

    def _serve(self):
        while self._ready(self.socket):
            try:
                data, client = self.socket.recvfrom(65536)
                self.clients.append(client[:2])
                self.socket.sendto(f"{self.name} {client[0]} {client[1]} ".encode() + data, client)
            except OSError:
                continue


class HttpServer:
    """GET / tells the name, /ip the client's address, /bytes/N sends N bytes; POST tells how much came."""

    def __init__(self, net, port=80, address="0.0.0.0", name="web"):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                server.requests.append((self.client_address[0], self.path))
                if self.path == "/ip":
                    return self.answer(self.client_address[0].encode())
                if self.path.startswith("/bytes/"):
                    return self._bytes(int(self.path.split("/")[2]))
                return self.answer(f"hello from {server.name}\n".encode())

            def _bytes(self, count):
                self.send_response(200)
                self.send_header("Content-Length", str(count))
                self.end_headers()
                block = b"x" * 65536
                while count:
                    self.wfile.write(block[:count])
                    count -= min(count, len(block))
                return None

            def do_POST(self):
                left = count = int(self.headers["Content-Length"])
                while left:
                    left -= len(self.rfile.read(min(left, 65536)))
                self.answer(f"{count} bytes\n".encode())

            def log_message(self, *args):
                pass

        class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass

        self.name = name
        self.requests = []
        self._server = Server((address, port), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = bound(net, socket.SOCK_STREAM, address, port)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


# Clients. Each returns what the user of that machine would have seen, or raises OSError.

def connect(net, address, port, timeout=3.0, source=None):
    sock = net.socket(family_of(address), socket.SOCK_STREAM)
    sock.settimeout(timeout * wait.PATIENCE)
    try:
        if source:
            sock.bind((source, 0))
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def read_line(sock):
    data = b""
    while not data.endswith(b"\n"):
        part = sock.recv(1)
        if not part:
            break
        data += part
    return data.decode().strip()


def tcp_greeting(net, address, port, timeout=3.0):
    """(server's name, the client's address as the server sees it)."""
    with connect(net, address, port, timeout) as sock:
        words = read_line(sock).split()
    if len(words) != 3:
        raise ConnectionError(f"closed without a greeting: {words}")
    return words[0], words[1]


def udp_greeting(net, address, port, timeout=3.0, data=b"hi", source_port=0):
    """The same over UDP; asks again each 0.3 s as UDP programs do."""
    with net.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        if source_port:
            sock.bind(("", source_port))
        sock.connect((address, port))
        sock.settimeout(0.3)

        def ask():
            try:
                sock.send(data)
                return sock.recv(65536)
            except TimeoutError:
                return None

        try:
            answer = wait.wait_for(ask, timeout, f"an answer from {address}:{port}/udp")
        except AssertionError as error:
            raise TimeoutError(str(error)) from None
    name, client, _, payload = answer.split(b" ", 3)
    assert payload == data
    return name.decode(), client.decode()


def greeting(net, protocol, address, port, timeout=3.0):
    return (tcp_greeting if protocol == "tcp" else udp_greeting)(net, address, port, timeout)


def unreachable(net, protocol, address, port, timeout=0.5):
    """True where nothing answers there: refused, forbidden or silent."""
    try:
        greeting(net, protocol, address, port, timeout)
    except OSError:
        return True
    return False


def refused(net, protocol, address, port, timeout=0.8):
    """True where a client is told at once that nobody listens, before it has to ask a second time."""
    with net.socket(family_of(address), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
            if protocol == "udp":
                sock.send(b"hi")
                sock.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    raise AssertionError(f"{address}:{port}/{protocol} answers")


def http_get(net, address, path="/", port=80, timeout=10.0):
    return net.inside(_http, "GET", address, port, path, None, timeout)


def http_post(net, address, count, port=80, timeout=60.0):
    return net.inside(_http, "POST", address, port, "/", b"x" * count, timeout)


def _http(method, address, port, path, body, timeout):
    connection = http.client.HTTPConnection(address, port, timeout=timeout * wait.PATIENCE)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status == 200, f"{method} {path}: {answer.status}"
        return data.decode()
    finally:
        connection.close()
