# SPDX-License-Identifier: GPL-2.0-or-later
"""EDNS compliance (RFC 6891), in the manner of the public tests of servers: local names, forwarded ones, names that are not there."""

import struct

import pytest

import dns
import topology

NAMES = ["web.moat.internal", "nobody.moat.internal", "www.example.org"]
every_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def guest(host, internet):
    return host.attach_guest("web")


def opt(size=1232, rcode=0, version=0, flags=0, options=b"", owner=b"\0"):
    return owner + struct.pack("!2HBBHH", 41, size, rcode, version, flags, len(options)) + options


def exchange(guest, name, *records, kind="A", flags=0x0100, tcp=False, opcode=0):
    header = struct.pack("!6H", 4242, flags | opcode << 11, 1, 0, 0, len(records))
    request = header + dns.encode_name(name) + struct.pack("!2H", dns.TYPES.get(kind, kind), 1) + b"".join(records)
    data = (dns.exchange_tcp if tcp else dns.exchange_udp)(guest, guest.gateway, request)
    return dns.Answer(data), data


def opt_of(data):
    """(size, upper rcode, version, flags, options) of the reply's OPT; None: it has none."""
    at = data.rfind(b"\0\0\x29")
    if dns.Answer(data).additional and dns.Answer(data).additional[-1].type == 41:
        size, rcode, version, flags, length = struct.unpack_from("!HBBHH", data, at + 3)
        return size, rcode, version, flags, data[at + 11:at + 11 + length]
    return None


@every_name
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_with_and_without(guest, name, tcp):
    plain, data = exchange(guest, name, tcp=tcp)
    assert opt_of(data) is None, "OPT for a client that did not say EDNS"
    answer, data = exchange(guest, name, opt(4096), tcp=tcp)
    assert opt_of(data) == (1232, 0, 0, 0, b"")
    assert (answer.rcode, answer.data, answer.has_soa) == (plain.rcode, plain.data, plain.has_soa)


@every_name
def test_a_later_version(guest, name):
    answer, data = exchange(guest, name, opt(version=1))
    assert opt_of(data)[:3] == (1232, 1, 0) and answer.rcode == "NOERROR" and not answer.answers, "not BADVERS (16)"
    answer, data = exchange(guest, name, opt(version=100, options=struct.pack("!2H", 100, 0)))
    assert opt_of(data)[:3] == (1232, 1, 0) and opt_of(data)[4] == b""


@every_name
@pytest.mark.parametrize("options", [struct.pack("!2H", 100, 0), struct.pack("!2H4s", 65001, 4, b"abcd"),
                                     struct.pack("!2H8s", 10, 8, b"cookie!!"), struct.pack("!2H", 3, 0),
                                     struct.pack("!2HHBB3s", 8, 7, 1, 24, 0, b"\x0a\0\0"), struct.pack("!2H100s", 12, 100, b"")],
                         ids=["empty", "local-use", "cookie", "nsid", "subnet", "padding"])
def test_options_are_ignored(guest, name, options):
    plain, _ = exchange(guest, name, opt())
    answer, data = exchange(guest, name, opt(options=options))
    assert (answer.rcode, answer.data) == (plain.rcode, plain.data)
    assert opt_of(data)[4] == b"", "an option that was not understood is given back"


@every_name
def test_flags(guest, name):
    _, data = exchange(guest, name, opt(flags=0x8000))
    assert opt_of(data)[3] == 0x8000, "DO is not given back (RFC 3225)"
    _, data = exchange(guest, name, opt(flags=0x4000))
    assert opt_of(data)[3] == 0, "a flag that nobody knows is given back"


@every_name
@pytest.mark.parametrize("records", [[opt(), opt()], [opt(owner=b"\3web\0")], [opt(options=b"\0\x0a\0\x08abc")], [opt(options=b"\0\x0a")]],
                         ids=["twice", "owner", "short-option", "half-option"])
def test_malformed_is_formerr(guest, name, records):
    answer, _ = exchange(guest, name, *records)
    assert answer.rcode == "FORMERR" and not answer.answers


@every_name
@pytest.mark.parametrize("opcode", [2, 4, 5, 15])
def test_other_opcodes(guest, name, opcode):
    answer, data = exchange(guest, name, opt(), opcode=opcode)
    assert answer.rcode == "NOTIMP" and data[2] >> 3 & 15 == opcode


@pytest.mark.parametrize("size, fits", [(0, False), (512, False), (1232, True), (4096, True)])
def test_the_clients_size_counts(host, guest, internet, size, fits):
    host.call("dns.add", name="note", type="TXT", values=["x" * 250, "y" * 250, "z" * 250])
    internet.dns.add("many.example.org", "A", *[f"192.0.2.{i}" for i in range(1, 61)])
    for name, kind in (("note.moat.internal", "TXT"), ("many.example.org", "A")):
        answer, data = exchange(guest, name, opt(size), kind=kind)
        assert answer.truncated != fits and len(data) <= max(512, min(size, 1232)), f"{name}: {len(data)} bytes"
        assert opt_of(data)[0] == 1232, "a truncated answer lost its OPT"
        assert exchange(guest, name, opt(size), kind=kind, tcp=True)[0].answers


def test_checking_disabled_and_authentic_data(guest):
    for name in NAMES:
        _, data = exchange(guest, name, opt(), flags=0x0110)
        assert data[3] & 0x10, "CD is not given back (RFC 4035 section 3.2.2)"
        _, data = exchange(guest, name, opt(), flags=0x0120)
        assert not data[3] & 0x20, "AD without anybody who checked"


def test_upstream_is_asked_with_edns_of_our_own(guest, internet):
    seen = []

    def look(request, tcp):
        seen.append(request)
        return dns.DnsServer.reply(request, [topology.INTERNET], over_tcp=tcp)

    internet.dns.add("seen.example.org", "A", look)
    exchange(guest, "seen.example.org", opt(4096, options=struct.pack("!2H8s", 10, 8, b"cookie!!")))
    exchange(guest, "seen.example.org", opt(4096, flags=0x8000))
    assert [opt_of(request) for request in seen] == [(1232, 0, 0, 0, b""), (1232, 0, 0, 0x8000, b"")], "a client's options went on"
