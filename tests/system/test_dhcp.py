# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv4 for guests on taps: the protocol, byte by byte, and the clients that people use."""

import os
import select
import shutil
import socket
import struct
import subprocess
import time

import pytest

import topology
import vmm
from wait import PATIENCE, wait_for

BROADCAST_MAC = b"\xff" * 6
COOKIE = bytes([99, 130, 83, 99])
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)


@pytest.fixture
def machines(host):
    opened = []

    def make(name="vm", *options, network="default", up="eth0", **kwargs):
        if name not in host.guest_names():
            host.moat("attach", name, "--network", network, "--tap", *options)
        opened.append(vmm.Machine(host, name, **kwargs))
        opened[-1].up(up)
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def udp_frame(source_mac, destination_mac, source, destination, sport, dport, payload):
    source, destination = socket.inet_aton(source), socket.inet_aton(destination)
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", sport, dport, length, 0) + payload
    total = checksum(source + destination + struct.pack("!HH", 17, length) + udp) or 0xffff
    udp = udp[:6] + struct.pack("!H", total) + udp[8:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0, 64, 17, 0, source, destination)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return destination_mac + source_mac + b"\x08\x00" + header + udp


class Reply:
    def __init__(self, frame):
        self.destination_mac, self.source_mac = frame[:6], frame[6:12]
        header = frame[14:34]
        assert checksum(header) == 0, "the IPv4 header's checksum is wrong"
        total = struct.unpack("!H", header[2:4])[0]
        udp = frame[34:14 + total]
        assert checksum(header[12:20] + struct.pack("!HH", 17, len(udp)) + udp) == 0, "the UDP checksum is wrong"
        self.source, self.destination = socket.inet_ntoa(header[12:16]), socket.inet_ntoa(header[16:20])
        data = udp[8:]
        self.size = len(data) + 28
        self.op, self.xid, self.flags = data[0], data[4:8], struct.unpack("!H", data[10:12])[0]
        self.ciaddr, self.yiaddr = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
        self.options = {}
        rest = data[240:]
        while rest and rest[0] != 255:
            if rest[0]:
                self.options[rest[0]] = self.options.get(rest[0], b"") + rest[2:2 + rest[1]]
                rest = rest[2 + rest[1]:]
            else:
                rest = rest[1:]
        self.type = self.options[53][0]

    def ip(self, code):
        return socket.inet_ntoa(self.options[code])

    def number(self, code):
        return int.from_bytes(self.options[code], "big")


class Client:
    """A DHCP client that says whatever it is told to."""

    def __init__(self, machine, mac=None):
        self.mac = mac_bytes(mac or machine.endpoint()["mac"])
        self.socket = machine.wire()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def message(self, kind, options=(), ciaddr="0.0.0.0", giaddr="0.0.0.0", flags=0, xid=b"xid1", hops=0, chaddr=None,
                op=1):
        data = struct.pack("!BBBB4sHH4s4s4s4s16s192s", op, 1, 6, hops, xid, 0, flags, socket.inet_aton(ciaddr),
                           bytes(4), bytes(4), socket.inet_aton(giaddr), chaddr or self.mac, b"") + COOKIE
        if kind:
            data += bytes([53, 1, kind])
        for code, value in options:
            data += bytes([code, len(value)]) + value
        return data + b"\xff"

    def send(self, kind, options=(), destination="255.255.255.255", source="0.0.0.0", to_mac=BROADCAST_MAC, from_mac=None,
             **kwargs):
        self.send_raw(self.message(kind, options, **kwargs), destination, source, to_mac, from_mac)

    def send_raw(self, data, destination="255.255.255.255", source="0.0.0.0", to_mac=BROADCAST_MAC, from_mac=None):
        self.socket.send(udp_frame(from_mac or self.mac, to_mac, source, destination, 68, 67, data))

    def receive(self, timeout=2.0):
        """The next reply, None where none comes."""
        deadline = time.monotonic() + timeout * PATIENCE
        while select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0]:
            frame = self.socket.recv(4096)
            if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == struct.pack("!HH", 67, 68):
                return Reply(frame)
        return None

    def ask(self, kind, options=(), **kwargs):
        self.send(kind, options, **kwargs)
        return self.receive()

    def silent(self, *args, **kwargs):
        self.send(*args, **kwargs)
        return self.receive(0.3) is None


def ip(text):
    return socket.inet_aton(text)


# The protocol

def test_offer_and_acknowledgement(host, machines):
    machine = machines("vm")
    address = machine.endpoint()["ip"]
    with Client(machine) as client:
        offer = client.ask(DISCOVER)
        assert (offer.type, offer.op, offer.xid, offer.yiaddr) == (OFFER, 2, b"xid1", address)
        assert offer.ip(54) == "10.88.0.1" and offer.source == "10.88.0.1"
        assert offer.destination == address and offer.destination_mac == client.mac
        assert offer.source_mac == mac_bytes(host.links()["moat0"]["address"])
        ack = client.ask(REQUEST, [(50, ip(address)), (54, ip("10.88.0.1"))])
        assert (ack.type, ack.yiaddr) == (ACK, address)
        assert ack.ip(1) == "255.255.0.0" and ack.ip(3) == "10.88.0.1" and ack.ip(6) == "10.88.0.1"
        assert ack.options[12] == b"vm" and ack.options[15] == b"moat.internal"
        assert ack.options[119] == b"\x04moat\x08internal\x00"
        assert ack.number(26) == 1500 and ack.number(51) == 3600 and ack.number(58) == 1800 and ack.number(59) == 3150
        assert 42 not in ack.options and 121 not in ack.options


def test_search_ntp_and_lease_as_configured(host, machines):
    host.stop()
    host.configure("[dhcp]\nlease = 600\nntp = 192.0.2.1, 192.0.2.2\n")
    host.start()
    host.call("guest.attach", name="vm", kind="tap", networks=[{"name": "default"}], dns_search=["corp.example", "x.test"])
    with Client(machines("vm")) as client:
        offer = client.ask(DISCOVER)
        assert offer.options[119] == b"\x04moat\x08internal\x00\x04corp\x07example\x00\x01x\x04test\x00"
        assert offer.options[42] == ip("192.0.2.1") + ip("192.0.2.2") and offer.number(51) == 600


def test_broadcast_flag(host, machines):
    with Client(machines("vm")) as client:
        offer = client.ask(DISCOVER, flags=0x8000)
        assert offer.destination == "255.255.255.255" and offer.destination_mac == BROADCAST_MAC and offer.flags == 0x8000


def test_a_broadcast_answer_is_for_that_guest_alone(host, machines):
    one, two = machines("one"), machines("two")
    with Client(one) as client, Client(two) as other:
        assert client.ask(DISCOVER, flags=0x8000).type == OFFER
        assert other.receive(0.3) is None


def test_client_identifier_comes_back(host, machines):
    with Client(machines("vm")) as client:
        assert client.ask(DISCOVER, [(61, b"\xff1234identifier")]).options[61] == b"\xff1234identifier"


@pytest.mark.parametrize("limit", [576, 1500, 40, 65535])
def test_size_of_answers(host, machines, limit):
    host.call("guest.attach", name="vm", kind="tap", networks=[{"name": "default"}],
              dns_search=[f"{'a' * 60}.{'b' * 60}.{'c' * 60}.d{i}.example" for i in range(5)])
    with Client(machines("vm")) as client:
        offer = client.ask(DISCOVER, [(57, struct.pack("!H", limit))])
        assert 300 + 28 <= offer.size <= min(max(limit, 576), 1500)
        assert offer.options[119].count(b"\x07example") == (5 if limit >= 1500 else 1)


def test_states_of_a_client(host, machines):
    machine = machines("vm")
    address = machine.endpoint()["ip"]
    gateway_mac = mac_bytes(host.links()["moat0"]["address"])
    with Client(machine) as client:
        # INIT-REBOOT
        assert client.ask(REQUEST, [(50, ip(address))]).type == ACK
        wrong = client.ask(REQUEST, [(50, ip("10.88.200.200"))])
        assert wrong.type == NAK and wrong.destination == "255.255.255.255" and wrong.yiaddr == "0.0.0.0"
        assert 51 not in wrong.options and 1 not in wrong.options
        assert client.ask(REQUEST, [(50, ip("192.0.2.7"))]).type == NAK
        # RENEWING, to the server alone
        ack = client.ask(REQUEST, ciaddr=address, source=address, destination="10.88.0.1", to_mac=gateway_mac)
        assert ack.type == ACK and ack.destination == address and ack.ciaddr == address and ack.yiaddr == address
        # REBINDING
        assert client.ask(REQUEST, ciaddr=address, source=address).type == ACK
        assert client.ask(REQUEST, ciaddr="10.88.200.200", source="10.88.200.200").type == NAK
        # It took somebody else's offer
        assert client.silent(REQUEST, [(50, ip(address)), (54, ip("10.88.0.2"))])
        # Nothing is asked for
        assert client.silent(REQUEST)
        # INFORM gives settings, no lease
        told = client.ask(INFORM, ciaddr=address, source=address)
        assert told.type == ACK and told.yiaddr == "0.0.0.0" and 51 not in told.options and told.ip(6) == "10.88.0.1"
        # RELEASE and DECLINE: no answer, and the address stays the guest's
        assert client.silent(RELEASE, [(54, ip("10.88.0.1"))], ciaddr=address, source=address, destination="10.88.0.1")
        assert client.silent(DECLINE, [(50, ip(address)), (54, ip("10.88.0.1"))])
        assert client.ask(DISCOVER).yiaddr == address
    assert "is in use by another machine" in host.daemon.log()


def test_who_gets_nothing(host, machines):
    machine = machines("vm")
    stranger = "02:00:00:00:00:77"
    with Client(machine) as client, Client(machine, stranger) as other:
        assert other.silent(DISCOVER), "an unknown MAC"
        assert client.silent(DISCOVER, chaddr=mac_bytes(stranger)), "another one's hardware address inside"
        assert client.silent(DISCOVER, from_mac=mac_bytes(stranger)), "from another MAC"
        assert client.silent(DISCOVER, giaddr="10.88.0.9"), "relayed"
        assert client.silent(DISCOVER, hops=1), "relayed, by its hops"
        assert client.silent(None), "plain BOOTP"
        assert client.silent(DISCOVER, op=2), "a reply"
        assert client.silent(OFFER), "a server's message"
        assert client.silent(99), "no message type"
        assert client.silent(DISCOVER, destination="192.0.2.1"), "another server"
        assert client.ask(DISCOVER).type == OFFER


def test_a_neighbours_mac_on_a_foreign_tap(host, machines):
    one, two = machines("one"), machines("two")
    with Client(one, two.endpoint()["mac"]) as thief, Client(two) as owner:
        thief.send(DISCOVER)
        assert thief.receive(0.3) is None and owner.receive(0.1) is None
        assert owner.ask(DISCOVER).yiaddr == two.endpoint()["ip"]


@pytest.mark.parametrize("data", [
    b"", b"\x01", b"\x01\x01\x06\x00" + bytes(232), b"\x01\x01\x06\x00" + bytes(232) + COOKIE,
], ids=["empty", "short", "no-cookie", "no-options"])
def test_malformed_messages(host, machines, data):
    with Client(machines("vm")) as client:
        client.send_raw(data)
        whole = client.message(DISCOVER)
        for options in (b"\x35", b"\x35\x01", b"\x35\xff\x01", b"\x35\x00\xff", b"\x32\x02\x01\x01\x35\x01\x01\xff", b"\x00" * 900):
            client.send_raw(whole[:240] + options)
        assert client.receive(0.3) is None
        assert client.ask(DISCOVER).type == OFFER


def test_options_in_the_other_fields(host, machines):
    """Option overload: a client may continue in `file` and `sname`."""
    with Client(machines("vm")) as client:
        data = bytearray(client.message(None, [(52, b"\x01")]))
        data[108:112] = bytes([53, 1, DISCOVER, 255])
        client.send_raw(bytes(data))
        assert client.receive().type == OFFER


def test_a_bad_checksum_is_dropped(host, machines):
    with Client(machines("vm")) as client:
        frame = bytearray(udp_frame(client.mac, BROADCAST_MAC, "0.0.0.0", "255.255.255.255", 68, 67, client.message(DISCOVER)))
        frame[40] ^= 0x55
        client.socket.send(bytes(frame))
        assert client.receive(0.3) is None


def test_a_guest_with_a_namespace_gets_nothing(host):
    """It has its address already; DHCP is for those who can't be given it."""
    guest = host.attach_guest("g")

    class Inside:
        def endpoint(self):
            return guest.endpoint()

        def wire(self):
            def work():
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                sock.bind(("eth0", 0))
                return sock
            return guest.inside(work)

    with Client(Inside()) as client:
        assert client.silent(DISCOVER)


@pytest.mark.parametrize("options,vnet", [([], False), (["--vnet-hdr"], True), (["--mode", "outbound"], False)])
def test_every_kind_of_port(host, machines, options, vnet):
    with Client(machines("vm", *options, vnet_hdr=vnet)) as client:
        assert client.ask(DISCOVER).type == OFFER


def test_an_internal_network_has_no_router(host, machines):
    host.moat("net", "create", "closed", "--internal")
    with Client(machines("vm", network="closed")) as client:
        offer = client.ask(DISCOVER)
        assert 3 not in offer.options and 6 in offer.options


def test_a_network_without_a_name_service(host, machines):
    host.moat("net", "create", "quiet", "--no-dns")
    with Client(machines("vm", network="quiet")) as client:
        assert client.ask(DISCOVER).ip(6) == topology.INTERNET_DNS


def test_the_next_network_takes_the_default_route_over(host, machines):
    host.moat("net", "create", "back")
    host.moat("attach", "vm", "--network", "default", "--network", "back", "--tap")
    machine = machines("vm", interface=1, up="eth1")
    with Client.__new__(Client) as client:
        client.mac = mac_bytes(machine.endpoint(1)["mac"])
        client.socket = machine.wire("eth1")
        assert 3 not in client.ask(DISCOVER).options
        host.moat("detach", "vm", "--network", "default")
        assert 3 in client.ask(DISCOVER).options


def test_after_a_detach_nobody_answers(host, machines):
    machine = machines("vm")
    mac = machine.endpoint()["mac"]
    machine.close()
    host.moat("detach", "vm")
    host.call("guest.attach", name="other", kind="tap", networks=[{"name": "default"}])
    with Client(machines("other"), mac) as client:
        assert client.silent(DISCOVER)


# The daemon ends, the worker ends

def test_answers_while_moatd_is_away(host, machines):
    with Client(machines("vm")) as client:
        host.stop()
        assert client.ask(DISCOVER).type == OFFER
        host.start()
        assert client.ask(DISCOVER).type == OFFER
        host.crash()
        assert client.ask(DISCOVER).type == OFFER
        host.start()
        assert client.ask(DISCOVER).type == OFFER


def test_a_killed_worker_is_replaced(host, machines):
    with Client(machines("vm")) as client:
        pid = host.call("system.status")["dhcp_pid"]
        os.kill(pid, 9)
        assert client.ask(DISCOVER).type == OFFER, "what was asked meanwhile waits in the socket"
        wait_for(lambda: host.call("system.status")["dhcp_pid"] not in (None, pid), 3, "another worker")


def test_the_worker_has_no_rights(host, machines):
    machines("vm")
    with open(f"/proc/{host.call('system.status')['dhcp_pid']}/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert set(status["Uid"].split()) != {"0"} and int(status["CapEff"], 16) == 0 and status["Seccomp"] == "2"


def test_a_flood_takes_nothing_from_others(host, machines):
    """As fast as it can, for half a second, from one tap; the neighbour is answered at once all the while."""
    flooder, neighbour = machines("flooder"), machines("neighbour")
    pid = host.call("system.status")["dhcp_pid"]
    with Client(flooder) as loud, Client(neighbour) as client:
        # To the host's MAC, which the bridge does not copy to everybody: it is the worker that is flooded.
        frame = udp_frame(loud.mac, mac_bytes(host.links()["moat0"]["address"]), "0.0.0.0", "255.255.255.255", 68, 67, loud.message(DISCOVER))
        slowest = 0
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            for _ in range(200):
                try:
                    loud.socket.send(frame, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
            start = time.monotonic()
            assert client.ask(DISCOVER).type == OFFER
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 0.5 * PATIENCE
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            resident_kb = int([line for line in file if line.startswith("VmRSS")][0].split()[1])
        assert resident_kb < 64 * 1024 * PATIENCE
    assert host.call("system.status")["dhcp_pid"] == pid


# Real clients

def lease_of(machine):
    return [a for a in machine.addresses("eth0") if "." in a]


def has_network(machine):
    return lease_of(machine) == [machine.endpoint()["ip"]] and machine.ping(topology.INTERNET)


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_udhcpc(host, machines):
    machine = machines("vm")
    script = os.path.join(host.temporary("udhcpc"), "script")
    with open(script, "w", encoding="ascii") as file:
        file.write('#!/bin/sh\nenv > "$0.$1"\n[ "$1" = bound ] || exit 0\n'
                   'ip address add $ip/$mask dev $interface\nip route add default via $router\n')
    os.chmod(script, 0o755)
    machine.run("busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", script, "-O", "search", "-O", "mtu")
    assert has_network(machine)
    with open(f"{script}.bound", encoding="ascii") as file:
        told = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    assert told["hostname"] == "vm" and told["domain"] == "moat.internal" and told["search"] == "moat.internal"
    assert told["dns"] == "10.88.0.1" and told["mtu"] == "1500" and told["serverid"] == "10.88.0.1"


@pytest.mark.skipif(not shutil.which("dhclient"), reason="isc-dhcp-client is not installed")
def test_dhclient_and_its_renewal(host, machines):
    host.stop()
    host.configure("[dhcp]\nlease = 120\n")
    host.start()
    machine = machines("vm")
    directory = host.temporary("dhclient")
    script, leases = os.path.join(directory, "script"), os.path.join(directory, "leases")
    with open(script, "w", encoding="ascii") as file:
        file.write('#!/bin/sh\nenv > "$0.$reason"\n[ "$reason" = BOUND ] || exit 0\n'
                   'ip address add $new_ip_address/16 dev $interface\nip route add default via $new_routers\n')
    os.chmod(script, 0o755)
    arguments = ["dhclient", "-4", "-v", "-1", "-cf", "/dev/null", "-lf", leases, "-pf", os.path.join(directory, "pid"),
                 "-sf", script, "eth0"]
    try:
        machine.run(*arguments)
        assert has_network(machine)
        with open(f"{script}.BOUND", encoding="ascii") as file:
            told = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
        assert told["new_domain_name_servers"] == "10.88.0.1" and told["new_dhcp_lease_time"] == "120"
    finally:
        machine.run("dhclient", "-4", "-r", *arguments[4:], check=False)
    assert lease_of(machine) == [] or machine.ping("10.88.0.1")


NETWORKD = "/lib/systemd/systemd-networkd"


@pytest.mark.skipif(not os.path.exists(NETWORKD), reason="systemd-networkd is not installed")
def test_systemd_networkd(host, machines):
    """As on a distribution's image: both families, by DHCPv4 and by the advertisement that says DHCPv6."""
    host.moat("net", "create", "six", "--ipv6")
    machine = machines("vm", network="six", up="lo")
    # A file system of its own, in which no udev speaks for the links.
    networkd = machine.popen("unshare", "-m", "sh", "-ec", f"""
        mount -t sysfs -o ro sysfs /sys
        mount -t tmpfs run /run
        mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
        chown -R systemd-network /run/systemd/netif 2>/dev/null || true
        printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\nLinkLocalAddressing=ipv6\n' > /run/systemd/network/eth0.network
        exec {NETWORKD}
    """, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        endpoint = machine.endpoint()
        wait_for(lambda: set(machine.addresses("eth0")) == {endpoint["ip"], endpoint["ip6"]}, 15,
                 lambda: f"both addresses; there are {machine.addresses('eth0')}", 0.2)
        assert machine.ping(topology.INTERNET)
        wait_for(lambda: machine.ping(topology.INTERNET6), 5, "the way out by IPv6")
    finally:
        networkd.terminate()
        print(networkd.communicate(timeout=20)[0])


@pytest.mark.skipif(not shutil.which("perfdhcp"), reason="perfdhcp (kea-admin) is not installed")
def test_perfdhcp(host, machines):
    """One client, as fast as it is answered. perfdhcp plays a relay, which moat refuses, unless it is told what to send."""
    machine = machines("vm")
    address = machine.endpoint()["ip"]
    machine.ip("address", "add", f"{address}/16", "dev", "eth0")
    directory = host.temporary("perfdhcp")
    with Client(machine) as client:
        messages = [client.message(DISCOVER), client.message(REQUEST, [(50, ip(address)), (54, ip("10.88.0.1"))])]
    options = []
    for number, message in enumerate(messages):
        path = os.path.join(directory, f"template{number}")
        with open(path, "w", encoding="ascii") as file:
            file.write(message.hex())
        options += ["-T", path]
    outcome = machine.run("perfdhcp", "-4", "-r", "100", "-R", "1", "-b", f"mac={machine.endpoint()['mac']}", "-n", "200", "-W",
                          "500000", "-B", "-L", "68", "-l", "eth0", *options, "-O", "33", "-O", "33", "-S", "249", "-I", "243",
                          "255.255.255.255", check=False, timeout=60)
    print(outcome.stdout)
    assert outcome.stdout.count("received packets: 200") == 2, outcome.stdout + outcome.stderr
