# SPDX-License-Identifier: GPL-2.0-or-later
"""Router advertisements and DHCPv6 for guests on taps: byte by byte, and with the clients that people use."""

import ipaddress
import os
import select
import shutil
import socket
import struct
import time

import pytest

import topology
import vmm
from wait import PATIENCE, wait_for

SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE = range(1, 10)
INFORMATION_REQUEST = 11
CLIENT_ID, SERVER_ID, IA_NA, IA_TA, ADDRESS, STATUS, RAPID, DNS, SEARCH, IA_PD = 1, 2, 3, 4, 5, 13, 14, 23, 24, 25
DUID = b"\x00\x03\x00\x01" + b"\x02\x00\x00\x00\x00\x01"
SERVERS = "ff02::1:2"


@pytest.fixture
def machines(host):
    opened = []

    def make(name="vm", *options, network=("--ipv6",), **kwargs):
        if "six" not in [n["name"] for n in host.call("network.list")]:
            host.moat("net", "create", "six", *network)
        if name not in host.guest_names():
            host.moat("attach", name, "--network", "six", "--tap", *options)
        opened.append(vmm.Machine(host, name, **kwargs))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def sum16(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packed(text):
    return socket.inet_pton(socket.AF_INET6, text)


def multicast_mac(address):
    return b"\x33\x33" + packed(address)[12:]


def frame(source_mac, source, destination, protocol, payload, hops=255, to_mac=None):
    offset = 6 if protocol == 17 else 2
    total = sum16(packed(source) + packed(destination) + struct.pack("!II", len(payload), protocol) + payload)
    payload = payload[:offset] + struct.pack("!H", total or 0xffff) + payload[offset + 2:]
    header = struct.pack("!IHBB", 0x60000000, len(payload), protocol, hops) + packed(source) + packed(destination)
    return (to_mac or multicast_mac(destination)) + source_mac + b"\x86\xdd" + header + payload


class Packet:
    """An IPv6 packet that arrived; its checksum has to be right."""

    def __init__(self, data):
        self.destination_mac, self.source_mac = data[:6], data[6:12]
        length, self.protocol, self.hops = struct.unpack("!HBB", data[18:22])
        self.source = socket.inet_ntop(socket.AF_INET6, data[22:38])
        self.destination = socket.inet_ntop(socket.AF_INET6, data[38:54])
        self.payload = data[54:54 + length]
        assert sum16(data[22:54] + struct.pack("!II", length, self.protocol) + self.payload) == 0, "wrong checksum"


def options_of(data):
    """DHCPv6 options as a dictionary of lists."""
    found = {}
    while data:
        code, length = struct.unpack("!HH", data[:4])
        found.setdefault(code, []).append(data[4:4 + length])
        data = data[4 + length:]
    return found


class Reply:
    def __init__(self, packet):
        self.packet = packet
        data = packet.payload[8:]
        self.type, self.xid = data[0], data[1:4]
        self.options = options_of(data[4:])

    def ia(self, index=0, kind=IA_NA):
        return options_of(self.options[kind][index][4 if kind == IA_TA else 12:])

    def addresses(self, index=0):
        """(address, preferred, valid) of an association."""
        return [(socket.inet_ntop(socket.AF_INET6, data[:16]), *struct.unpack("!II", data[16:24]))
                for data in self.ia(index).get(ADDRESS, [])]

    def status(self):
        return struct.unpack("!H", self.options[STATUS][0][:2])[0]

    def ia_status(self, index=0, kind=IA_NA):
        return struct.unpack("!H", self.ia(index, kind)[STATUS][0][:2])[0]


class Advertisement:
    def __init__(self, packet):
        self.packet = packet
        data = packet.payload
        self.hop_limit, self.flags, self.lifetime = data[4], data[5], struct.unpack("!H", data[6:8])[0]
        self.options = {}
        data = data[16:]
        while data:
            self.options[data[0]] = data[:data[1] * 8]
            data = data[data[1] * 8:]


class Client:
    def __init__(self, machine):
        self.mac = bytes.fromhex(machine.endpoint()["mac"].replace(":", ""))
        self.socket = machine.wire()
        self.local = "fe80::1234"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def receive(self, want, timeout=2.0):
        deadline = time.monotonic() + timeout * PATIENCE
        while select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0]:
            data = self.socket.recv(4096)
            if data[:6] in (self.mac, multicast_mac("ff02::1")) and data[12:14] == b"\x86\xdd" and want(data):
                return Packet(data)
        return None

    # Router advertisements

    def solicit_router(self, source=None, hops=255, options=b"", timeout=2.0, code=0):
        self.socket.send(frame(self.mac, source or self.local, "ff02::2", 58, bytes([133, code, 0, 0]) + bytes(4) + options, hops))
        # The machine's own kernel asks too, and is answered.
        to = "ff02::1" if source == "::" else source or self.local
        packet = self.receive(lambda data: data[20] == 58 and data[54] == 134 and data[38:54] == packed(to), timeout)
        return packet and Advertisement(packet)

    # DHCPv6

    def send(self, kind, options, destination=SERVERS, source=None, sport=546, xid=b"\x01\x02\x03", mac=None, to_mac=None):
        data = bytes([kind]) + xid + b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)
        udp = struct.pack("!HHHH", sport, 547, 8 + len(data), 0) + data
        self.socket.send(frame(mac or self.mac, source or self.local, destination, 17, udp, 1, to_mac))

    def receive_reply(self, timeout=2.0):
        packet = self.receive(lambda data: data[20] == 17 and data[54:58] == struct.pack("!HH", 547, 546), timeout)
        return packet and Reply(packet)

    def ask(self, kind, options, **kwargs):
        self.send(kind, options, **kwargs)
        return self.receive_reply()

    def silent(self, kind, options, **kwargs):
        self.send(kind, options, **kwargs)
        return self.receive_reply(0.3) is None


def ia(*addresses, iaid=7):
    data = struct.pack("!III", iaid, 0, 0)
    for address in addresses:
        data += struct.pack("!HH", ADDRESS, 24) + packed(address) + bytes(8)
    return IA_NA, data


ME = (CLIENT_ID, DUID)


# Router advertisements

@pytest.mark.parametrize("mode", ["full", "outbound"])
def test_what_is_advertised(host, machines, mode):
    machine = machines("vm", "--mode", mode)
    machine.up()
    network = host.call("network.get", name="six")
    with Client(machine) as client:
        said = client.solicit_router()
        assert said.packet.source == "fe80::1" and said.packet.hops == 255 and said.packet.destination == client.local
        assert said.hop_limit == 64 and said.flags == 0xc0 and said.lifetime == 1800
        assert said.options[1][2:8] == said.packet.source_mac == bytes.fromhex(host.links()[network["bridge"]]["address"].replace(":", ""))
        assert struct.unpack("!I", said.options[5][4:8]) == (1500,)
        prefix = said.options[3]
        assert prefix[2] == 64 and prefix[16:32] == packed(str(ipaddress.ip_network(network["subnet6"])[0]))
        assert prefix[3] == 0x80, "never autonomous"
        assert struct.unpack("!II", prefix[4:12]) == ((86400, 86400) if mode == "full" else (0, 0)), "on the link where the others are"
        assert said.options[25][8:24] == packed(network["gateway6"])
        assert said.options[31][8:].rstrip(b"\0") == b"\x04moat\x08internal"
        assert client.solicit_router("::").packet.destination == "ff02::1"


def test_a_port_that_moves_is_told_of(host, machines):
    """At once: whether the others are on the link or behind the router."""
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        assert struct.unpack("!I", client.solicit_router().options[3][4:8]) == (86400,)
        for rules, valid_s in ((["--deny", "192.0.2.1"], 0), ([], 86400)):
            host.moat("policy", "set", "vm", *rules)
            packet = client.receive(lambda data: data[20] == 58 and data[54] == 134 and data[38:54] == packed("ff02::1"))
            assert packet, rules
            assert struct.unpack("!I", Advertisement(packet).options[3][4:8]) == (valid_s,)


def test_solicitations_that_are_none(host, machines):
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        assert client.solicit_router(hops=64, timeout=0.3) is None
        assert client.solicit_router(options=b"\x01\x00" + bytes(6), timeout=0.3) is None
        assert client.solicit_router("::", options=b"\x01\x01" + client.mac, timeout=0.3) is None
        assert client.solicit_router(code=1, timeout=0.3) is None
        assert client.solicit_router() is not None


def test_a_network_without_ipv6_says_nothing(host, machines):
    host.moat("attach", "vm", "--network", "default", "--tap")
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        assert client.solicit_router(timeout=0.3) is None
        assert client.silent(SOLICIT, [ME, ia()])


def test_an_internal_network_has_no_router(host, machines):
    machine = machines("vm", network=("--ipv6", "--internal"))
    machine.up()
    with Client(machine) as client:
        said = client.solicit_router()
        assert said.lifetime == 0 and 25 in said.options


def test_a_linux_kernel_takes_the_advertisement(host, machines):
    """Default route, MTU and the prefix; no address of its own making."""
    machine = machines("vm")
    machine.up()
    network = host.call("network.get", name="six")
    routes = wait_for(lambda: machine.ip_json("-6", "route", "show", "default"), 8, "the default route")
    assert routes[0]["gateway"] == "fe80::1" and routes[0]["dev"] == "eth0"
    assert network["subnet6"] in [route["dst"] for route in machine.ip_json("-6", "route", "show")]
    assert [a for a in machine.addresses("eth0") if ":" in a] == []


# DHCPv6

def test_four_messages(host, machines):
    machine = machines("vm")
    machine.up()
    address, gateway = machine.endpoint()["ip6"], host.call("network.get", name="six")["gateway6"]
    with Client(machine) as client:
        offer = client.ask(SOLICIT, [ME, ia()])
        assert offer.type == ADVERTISE and offer.xid == b"\x01\x02\x03" and offer.options[CLIENT_ID] == [DUID]
        assert offer.packet.source == "fe80::1" and offer.packet.destination == client.local
        assert offer.addresses() == [(address, 3600, 3600)]
        server = (SERVER_ID, offer.options[SERVER_ID][0])
        granted = client.ask(REQUEST, [ME, server, ia(address)])
        assert granted.type == REPLY and granted.addresses() == [(address, 3600, 3600)]
        assert struct.unpack("!III", granted.options[IA_NA][0][:12]) == (7, 1800, 2880)
        assert granted.options[DNS] == [packed(gateway)] and granted.options[SEARCH] == [b"\x04moat\x08internal\x00"]
        for kind in (RENEW, REBIND):
            options = [ME, ia(address)] + ([server] if kind == RENEW else [])
            assert client.ask(kind, options).addresses() == [(address, 3600, 3600)]
        foreign = str(ipaddress.ip_address(address) + 5)
        assert client.ask(RENEW, [ME, server, ia(foreign)]).addresses() == [(address, 3600, 3600), (foreign, 0, 0)]
        assert client.ask(CONFIRM, [ME, ia(address)]).status() == 0
        assert client.ask(CONFIRM, [ME, ia("2001:db8::1")]).status() == 4
        assert client.silent(CONFIRM, [ME, ia()])
        assert client.ask(RELEASE, [ME, server, ia(address)]).status() == 0
        assert client.ask(DECLINE, [ME, server, ia(address)]).status() == 0
        assert client.ask(SOLICIT, [ME, ia()]).addresses() == [(address, 3600, 3600)], "it stays the guest's"


def test_rapid_commit(host, machines):
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        reply = client.ask(SOLICIT, [ME, (RAPID, b""), ia()])
        assert reply.type == REPLY and RAPID in reply.options and reply.addresses()[0][0] == machine.endpoint()["ip6"]


def test_only_one_address(host, machines):
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        reply = client.ask(SOLICIT, [ME, ia(iaid=1), ia(iaid=2), (IA_TA, struct.pack("!I", 3)), (IA_PD, struct.pack("!III", 4, 0, 0))])
        assert len(reply.addresses(0)) == 1 and reply.ia_status(1) == 2
        assert reply.ia_status(0, IA_TA) == 2 and reply.ia_status(0, IA_PD) == 6


def test_information_request(host, machines):
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        reply = client.ask(INFORMATION_REQUEST, [])
        assert reply.type == REPLY and DNS in reply.options and IA_NA not in reply.options


def test_who_gets_nothing(host, machines):
    machine = machines("vm")
    machine.up()
    with Client(machine) as client:
        server = (SERVER_ID, client.ask(SOLICIT, [ME, ia()]).options[SERVER_ID][0])
        assert client.silent(SOLICIT, [ia()]), "without a client identifier"
        assert client.silent(SOLICIT, [ME, server, ia()]), "a SOLICIT has no server identifier"
        assert client.silent(REQUEST, [ME, ia()]), "without a server identifier"
        assert client.silent(REQUEST, [ME, (SERVER_ID, DUID), ia()]), "another server"
        assert client.silent(INFORMATION_REQUEST, [ME, ia()])
        assert client.silent(SOLICIT, [ME, ia()], source="2001:db8::9"), "not from the link"
        assert client.silent(SOLICIT, [ME, ia()], destination="fe80::1", to_mac=bytes.fromhex(
            host.links()[host.bridge_of("six")]["address"].replace(":", ""))), "to one server alone"
        assert client.silent(SOLICIT, [ME, ia()], mac=b"\x02\x00\x00\x00\x00\x99"), "an unknown MAC"
        assert client.silent(12, [ME, ia()]), "a relay"
        assert client.silent(ADVERTISE, [ME, ia()]), "a server"
        assert client.silent(SOLICIT, [ME, ME, ia()]), "an identifier twice"
        assert client.silent(SOLICIT, [ME, (IA_NA, b"\0\0")]), "a short association"
        assert client.silent(SOLICIT, [ME] + [ia(iaid=i) for i in range(20)]), "too many of them"
        assert client.ask(SOLICIT, [ME, ia()]) is not None


# Real clients

@pytest.mark.skipif(not shutil.which("dhclient"), reason="isc-dhcp-client is not installed")
@pytest.mark.parametrize("mode", ["full", "outbound"])
@pytest.mark.parametrize("network", [("--ipv6",), ("--ipv6", "--ipv4=false")], ids=["dual", "ipv6-only"])
def test_dhclient(host, machines, network, mode):
    machine = machines("vm", "--mode", mode, network=network)
    peer = host.attach_guest("peer", network="six")
    machine.up()
    wait_for(lambda: not any(a.get("tentative") for link in machine.ip_json("address", "show", "dev", "eth0")
                             for a in link["addr_info"]) and machine.ip_json("-6", "route", "show", "default"), 8,
             "a link-local address and the default route")
    directory = host.temporary("dhclient6")
    script = os.path.join(directory, "script")
    with open(script, "w", encoding="ascii") as file:
        file.write('#!/bin/sh\nenv > "$0.$reason"\n[ "$reason" = BOUND6 ] || exit 0\n'
                   'ip -6 address add $new_ip6_address/128 dev $interface nodad\n')
    os.chmod(script, 0o755)
    common = ["-6", "-cf", "/dev/null", "-lf", os.path.join(directory, "leases"), "-pf", os.path.join(directory, "pid"),
              "-sf", script]
    try:
        machine.run("dhclient", "-1", "-v", *common, "eth0")
        assert [a for a in machine.addresses("eth0") if ":" in a] == [machine.endpoint()["ip6"]]
        assert machine.ping(topology.INTERNET6) and machine.ping(peer.endpoint()["ip6"])
        assert peer.ping(machine.endpoint()["ip6"]) == (mode == "full")
        with open(f"{script}.BOUND6", encoding="ascii") as file:
            told = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
        assert told["new_dhcp6_name_servers"] == host.call("network.get", name="six")["gateway6"]
    finally:
        machine.run("dhclient", "-x", *common, "eth0", check=False)


@pytest.mark.skipif(not shutil.which("perfdhcp"), reason="perfdhcp (kea-admin) is not installed")
def test_perfdhcp(host, machines):
    machine = machines("vm")
    machine.up()
    wait_for(lambda: not any(a.get("tentative") for link in machine.ip_json("address", "show", "dev", "eth0")
                             for a in link["addr_info"]), 8, "a link-local address")
    mac = machine.endpoint()["mac"]
    outcome = machine.run("perfdhcp", "-6", "-r", "100", "-R", "1", "-b", f"mac={mac}", "-n", "200", "-W", "500000", "-l", "eth0",
                          "-L", "546", "all", check=False, timeout=60)
    print(outcome.stdout)
    assert outcome.stdout.count("received packets: 200") == 2, outcome.stdout + outcome.stderr
