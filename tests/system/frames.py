# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw frames: what root inside a guest can put on its wire, and what arrives elsewhere."""

import contextlib
import select
import socket
import struct
import time

BROADCAST = "ff:ff:ff:ff:ff:ff"
ETH_ALL, ETH_IP, ETH_ARP, ETH_IP6, ETH_VLAN, ETH_QINQ = 3, 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8


def mac(text):
    return bytes(int(part, 16) for part in text.split(":"))


def ip4(text):
    return socket.inet_aton(text)


def ip6(text):
    return socket.inet_pton(socket.AF_INET6, text)


def link_local(mac_text):
    """That the MAC address makes (RFC 4291, appendix A)."""
    octets = mac(mac_text)
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:])


def solicited_node(address):
    """Where an address is asked for (RFC 4291, section 2.7.1)."""
    return socket.inet_ntop(socket.AF_INET6, ip6("ff02::1:ff00:0")[:13] + ip6(address)[13:])


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def frame(source, destination, kind, payload):
    return mac(destination) + mac(source) + struct.pack("!H", kind) + payload


def vlan(data, number=7, kind=ETH_VLAN):
    """The same frame with an 802.1Q tag, or another kind of tag."""
    return data[:12] + struct.pack("!HH", kind, number) + data[12:]


def arp(operation, mac_a, ip_a, mac_b, ip_b):
    return struct.pack("!HHBBH", 1, ETH_IP, 6, 4, operation) + mac(mac_a) + ip4(ip_a) + mac(mac_b) + ip4(ip_b)


def packet4(source, destination, protocol, payload, options=b"", fragment=0, number=77):
    words = 5 + len(options) // 4
    header = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), number, fragment, 64, protocol, 0,
                         ip4(source), ip4(destination)) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def packet6(source, destination, following, payload, hops=255):
    return struct.pack("!IHBB", 6 << 28, len(payload), following, hops) + ip6(source) + ip6(destination) + payload


def fragments4(packet, size=8):
    """An IPv4 packet without options in pieces of `size` bytes."""
    header, data = packet[:20], packet[20:]
    pieces = []
    for at in range(0, len(data), size):
        piece = data[at:at + size]
        word = at // 8 | (0x2000 if at + size < len(data) else 0)
        head = header[:2] + struct.pack("!HHH", 20 + len(piece), 77, word) + header[8:10] + b"\0\0" + header[12:]
        pieces.append(head[:10] + struct.pack("!H", checksum(head)) + head[12:] + piece)
    return pieces


# RFC 8200, section 4: options that do nothing, and a routing header to go on to another address

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60


def behind_options6(packet, kind):
    """An IPv6 packet with one more extension header of options (hop by hop, or for the destination)."""
    return _behind6(packet, kind, bytes([packet[6], 0, 1, 4, 0, 0, 0, 0]))


def routed_on6(packet, hop, kind=0):
    """With a routing header: from the packet's destination on to `hop`."""
    return _behind6(packet, ROUTING, bytes([packet[6], 2, kind, 1, 0, 0, 0, 0]) + ip6(hop))


def _behind6(packet, kind, header):
    return packet[:4] + struct.pack("!HB", len(packet) - 40 + len(header), kind) + packet[7:40] + header + packet[40:]


def fragments6(packet, size=8):
    """All behind the fixed header in pieces of `size` bytes, each behind a fragment header."""
    data, pieces = packet[40:], []
    for at in range(0, len(data), size):
        piece = data[at:at + size]
        header = struct.pack("!BBHI", packet[6], 0, at | (at + size < len(data)), 4711) + piece
        pieces.append(packet[:4] + struct.pack("!HB", len(header), FRAGMENT) + packet[7:40] + header)
    return pieces


def udp4(source, destination, sport, dport, data, **kwargs):
    length = 8 + len(data)
    return packet4(source, destination, 17, struct.pack("!HHHH", sport, dport, length, 0) + data, **kwargs)


def _sum6(source, destination, following, payload):
    return checksum(ip6(source) + ip6(destination) + struct.pack("!II", len(payload), following) + payload)


def udp6(source, destination, sport, dport, data):
    head = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    head = head[:6] + struct.pack("!H", _sum6(source, destination, 17, head)) + head[8:]
    return packet6(source, destination, 17, head)


def icmp6(source, destination, kind, body, code=0):
    data = struct.pack("!BBH", kind, code, 0) + body
    data = data[:2] + struct.pack("!H", _sum6(source, destination, 58, data)) + data[4:]
    return packet6(source, destination, 58, data)


def send(net, interface, data, count=2):
    """A frame, or some one after the other."""
    sock = net.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
    try:
        sock.bind((interface, 0))
        for _ in range(count):
            for one in [data] if isinstance(data, bytes) else data:
                sock.send(one)
    finally:
        sock.close()


class Listener:
    """Every frame that comes in on an interface."""

    def __init__(self, net, interface):
        self.socket = net.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
        self.socket.bind((interface, 0))

    def hears(self, part, timeout):
        """Does a frame with these bytes come in within the time?"""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return False
            data, (_, _, kind, _, _) = self.socket.recvfrom(65535)
            if kind != socket.PACKET_OUTGOING and part in data:
                return True

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def listening(net, interface="eth0"):
    listener = Listener(net, interface)
    try:
        yield listener
    finally:
        listener.close()
