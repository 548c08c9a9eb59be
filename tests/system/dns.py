# SPDX-License-Identifier: GPL-2.0-or-later
"""DNS messages, a client, and a scripted server that plays the internet's resolver (RFC 1035, RFC 2308)."""

import collections
import random
import socket
import struct
import threading
import select

import servers
import wait

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
RCODES = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"]

Record = collections.namedtuple("Record", "name type ttl data")


def encode_name(name):
    out = b""
    for label in name.rstrip(".").split(".") if name.rstrip(".") else []:
        raw = label.encode()
        out += bytes([len(raw)]) + raw
    return out + b"\0"


def decode_name(data, offset):
    labels, after = [], None
    for _ in range(128):
        length = data[offset]
        if length >= 0xC0:
            after = after or offset + 2
            offset = struct.unpack_from("!H", data, offset)[0] & 0x3FFF
            continue
        if not length:
            return ".".join(labels), after or offset + 1
        labels.append(data[offset + 1:offset + 1 + length].decode("ascii", "backslashreplace"))
        offset += 1 + length
    raise ValueError("a name that does not end")


def query_bytes(name, kind="A", ident=None, recurse=True):
    ident = random.randrange(65536) if ident is None else ident
    header = struct.pack("!6H", ident, 0x0100 if recurse else 0, 1, 0, 0, 0)
    return header + encode_name(name) + struct.pack("!2H", TYPES.get(kind, kind), 1)


class Answer:
    """A parsed message."""

    def __init__(self, data):
        self.size = len(data)
        self.id, flags, questions, *counts = struct.unpack_from("!6H", data)
        self.response = bool(flags & 0x8000)
        self.authoritative = bool(flags & 0x0400)
        self.truncated = bool(flags & 0x0200)
        self.recursion_available = bool(flags & 0x0080)
        self.rcode = RCODES[flags & 15] if flags & 15 < len(RCODES) else str(flags & 15)
        offset = 12
        self.question = None
        for _ in range(questions):
            name, offset = decode_name(data, offset)
            kind, _ = struct.unpack_from("!2H", data, offset)
            self.question = (name, TYPE_NAMES.get(kind, kind))
            offset += 4
        sections = []
        for count in counts:
            section = []
            for _ in range(count):
                record, offset = self._record(data, offset)
                section.append(record)
            sections.append(section)
        self.answers, self.authority, self.additional = sections

    @staticmethod
    def _record(data, offset):
        name, offset = decode_name(data, offset)
        kind, _, ttl, length = struct.unpack_from("!2HIH", data, offset)
        offset += 10
        raw = data[offset:offset + length]
        if kind == TYPES["A"]:
            value = socket.inet_ntop(socket.AF_INET, raw)
        elif kind == TYPES["AAAA"]:
            value = socket.inet_ntop(socket.AF_INET6, raw)
        elif kind in (TYPES["PTR"], TYPES["CNAME"], TYPES["NS"]):
            value = decode_name(data, offset)[0]
        elif kind == TYPES["TXT"]:
            value, rest = b"", raw
            while rest:
                value, rest = value + rest[1:1 + rest[0]], rest[1 + rest[0]:]
            value = value.decode(errors="replace")
        elif kind == TYPES["SRV"]:
            value = "{} {} {} ".format(*struct.unpack_from("!3H", raw)) + (decode_name(data, offset + 6)[0] or ".")
        else:
            value = raw
        return Record(name, TYPE_NAMES.get(kind, kind), ttl, value), offset + length

    @property
    def data(self):
        """The answers' values, sorted."""
        return sorted(record.data for record in self.answers)

    @property
    def has_soa(self):
        return any(record.type == "SOA" for record in self.authority)

    def __repr__(self):
        return f"{self.question} {self.rcode} {self.answers} soa={self.has_soa}"


def ask(net, server, name, kind="A", timeout=3.0, tcp=False, port=53):
    """Ask as a stub resolver does; TimeoutError where no answer comes."""
    request = query_bytes(name, kind)
    data = (exchange_tcp if tcp else exchange_udp)(net, server, request, timeout, port)
    answer = Answer(data)
    assert answer.response and answer.id == struct.unpack_from("!H", request)[0]
    return answer


def exchange_udp(net, server, request, timeout=3.0, port=53):
    with net.socket(servers.family_of(server), socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout * wait.PATIENCE)
        sock.connect((server, port))
        sock.send(request)
        return sock.recv(65536)


def exchange_tcp(net, server, request, timeout=3.0, port=53):
    with servers.connect(net, server, port, timeout) as sock:
        sock.sendall(struct.pack("!H", len(request)) + request)
        return receive_tcp(sock)


def receive_exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError("closed in the middle of a message")
        data += part
    return data


def receive_tcp(sock):
    return receive_exactly(sock, struct.unpack("!H", receive_exactly(sock, 2))[0])


class DnsServer:
    """Answers from a table {(name, type): [values]}; remembers every question that came, and how it came.

    A name that has no row is NXDOMAIN, a name without that type an empty NOERROR. A value may be a callable
    f(request bytes, over_tcp) -> reply bytes or None (no reply), for servers that misbehave. Replies that do not
    fit into 512 bytes are truncated over UDP.
    """

    def __init__(self, net, address, port=53):
        self.table = {}
        self.questions = []
        self._udp = servers.bound(net, socket.SOCK_DGRAM, address, port)
        self._udp.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: thousands of questions may come at once
        self._tcp = servers.bound(net, socket.SOCK_STREAM, address, port)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._wake.close()
        self._thread.join(5)
        for sock in (self._udp, self._tcp, self._woken):
            sock.close()

    def reset(self):
        self.table.clear()
        self.questions.clear()

    def add(self, name, kind, *values):
        self.table[(name.lower(), kind)] = list(values)

    def asked(self, name):
        """How often this name was asked for here."""
        return sum(1 for question, _, _ in self.questions if question == name.lower())

    def _serve(self):
        while True:
            readable, _, _ = select.select([self._udp, self._tcp, self._woken], [], [])
            if self._woken in readable:
                return
            if self._udp in readable:
                try:
                    data, client = self._udp.recvfrom(65536)
                    reply = self._reply(data, False)
                    if reply:
                        self._udp.sendto(reply, client)
                except (OSError, struct.error, ValueError, IndexError):
                    pass
            if self._tcp in readable:
                connection, _ = self._tcp.accept()
                threading.Thread(target=self._serve_tcp, args=(connection,), daemon=True).start()

    def _serve_tcp(self, connection):
        with connection:
            connection.settimeout(10)
            try:
                while True:
                    reply = self._reply(receive_tcp(connection), True)
                    if reply:
                        connection.sendall(struct.pack("!H", len(reply)) + reply)
            except (OSError, struct.error, ValueError, IndexError):
                pass

    def _reply(self, request, over_tcp):
        name, offset = decode_name(request, 12)
        kind, _ = struct.unpack_from("!2H", request, offset)
        name, kind = name.lower(), TYPE_NAMES.get(kind, kind)
        self.questions.append((name, kind, "tcp" if over_tcp else "udp"))
        values = self.table.get((name, kind), [])
        if values and callable(values[0]):
            return values[0](request, over_tcp)
        known = any(row[0] == name for row in self.table)
        return self.reply(request, values, NOERROR if known else NXDOMAIN, over_tcp)

    @staticmethod
    def reply(request, values, rcode=NOERROR, over_tcp=False, ttl=60):
        ident, = struct.unpack_from("!H", request)
        _, offset = decode_name(request, 12)
        kind, _ = struct.unpack_from("!2H", request, offset)
        question = request[12:offset + 4]
        records = b"".join(DnsServer._encode(kind, value, ttl) for value in values)
        flags = 0x8180 | rcode
        if not over_tcp and 12 + len(question) + len(records) > 512:
            return struct.pack("!6H", ident, flags | 0x0200, 1, 0, 0, 0) + question
        return struct.pack("!6H", ident, flags, 1, len(values), 0, 0) + question + records

    @staticmethod
    def _encode(kind, value, ttl):
        if kind == TYPES["A"]:
            raw = socket.inet_pton(socket.AF_INET, value)
        elif kind == TYPES["AAAA"]:
            raw = socket.inet_pton(socket.AF_INET6, value)
        elif kind == TYPES["TXT"]:
            raw = bytes([len(value)]) + value.encode()
        else:
            raw = encode_name(value)
        return b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, ttl, len(raw)) + raw
