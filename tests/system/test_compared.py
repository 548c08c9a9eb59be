# SPDX-License-Identifier: GPL-2.0-or-later
"""The same records, the same questions: the name service and Knot DNS are compared field by field.

Where both should agree: rcode, AA, the question as asked, the answers (owner, type, data), the owner of a negative answer's
SOA, EDNS. Where they need not: TTLs, the SOA's own data, the order of records, referrals.
"""

import glob
import itertools
import os
import shutil
import struct
import subprocess

import pytest

import dns
import topology
from wait import wait_for

PACKAGES = ("knot", "libknot13", "libzscanner4", "libdnssec9", "liblmdb0", "libfstrm0", "liburcu8", "libedit2", "libmaxminddb0", "libxdp1", "libbpf1")

RECORDS = [
    ("db", "A", ["192.0.2.1", "192.0.2.2"]), ("db", "AAAA", ["2001:db8::1"]), ("db", "TXT", ["one two"]),
    ("a.b.c", "A", ["192.0.2.3"]), ("www", "CNAME", ["db"]), ("chain", "CNAME", ["www"]), ("dangling", "CNAME", ["nobody"]),
    ("*.apps", "A", ["192.0.2.4"]), ("own.apps", "TXT", ["exists"]), ("deep.own.apps", "A", ["192.0.2.5"]), ("*.alias", "CNAME", ["db"]),
    ("_sip._tcp.db", "SRV", ["10 5 5060 db", "20 5 5061 www"]), ("none", "SRV", ["0 0 0 ."]), ("long", "TXT", ["x" * 300]),
]

NAMES = ["db", "DB", "dB", "a.b.c", "b.c", "c", "x.b.c", "www", "chain", "dangling", "nobody", "x.db", "apps", "x.apps", "y.x.apps", "own.apps",
         "x.own.apps", "deep.own.apps", "*.apps", "x.*.apps", "alias", "x.alias", "_sip._tcp.db", "_tcp.db", "x._tcp.db", "none", "long"]
KINDS = ["A", "AAAA", "CNAME", "TXT", "SRV", "MX", "NS", 65, 65280]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("knot"))
    outcome = subprocess.run(["apt-get", "-q", "download", *PACKAGES], cwd=directory, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        pytest.skip(f"the packages can't be had: {outcome.stderr.strip()[:200]}")
    for package in glob.glob(os.path.join(directory, "*.deb")):
        subprocess.run(["dpkg", "-x", package, directory], check=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def zone_text():
    lines = ["$ORIGIN moat.internal.", "$TTL 5", "@ SOA host hostmaster 1 3600 600 86400 5", "@ NS host", "host A 10.88.0.1"]
    for name, kind, values in RECORDS:
        for value in values:
            if kind == "TXT":
                value = " ".join(f'"{value[i:i + 255]}"' for i in range(0, len(value), 255))
            lines.append(f"{name} {kind} {value}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def knot(world, programs, tmp_path):
    """A knotd that serves the records as a zone, in the outside."""
    (tmp_path / "moat.internal.zone").write_text(zone_text(), encoding="ascii")
    (tmp_path / "knot.conf").write_text(f"""
server:
    rundir: {tmp_path}
    listen: {topology.INTERNET}@5353
    user: root
database:
    storage: {tmp_path}
zone:
  - domain: moat.internal
    storage: {tmp_path}
    file: moat.internal.zone
""", encoding="ascii")
    libraries = {"LD_LIBRARY_PATH": ":".join(glob.glob(f"{programs}/usr/lib/*-linux-gnu"))}
    process = world.outside.popen(f"{programs}/usr/sbin/knotd", "-c", str(tmp_path / "knot.conf"), env=libraries,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: answers(world), 10, lambda: f"knotd; it ended with {process.poll()}")
        yield world.outside
    finally:
        process.kill()
        process.communicate()


def answers(world):
    try:
        return dns.ask(world.outside, topology.INTERNET, "db.moat.internal", port=5353, timeout=0.3).rcode == "NOERROR"
    except OSError:
        return False


def fields(data):
    """What both should agree on."""
    answer = dns.Answer(data)
    soa = [record.name.lower() for record in answer.authority if record.type == "SOA"]
    opt = [record for record in answer.additional if record.type == 41]
    records = sorted((r.name, r.type, str(r.data).lower()) for r in answer.answers)
    return {"rcode": answer.rcode, "aa": answer.authoritative, "tc": answer.truncated, "question": answer.question,
            "answers": [] if answer.truncated else records, "soa": soa if not answer.truncated else [], "opt": len(opt)}


def request_of(name, kind, edns, ident=77):
    query = dns.query_bytes(name, kind, ident=ident, recurse=False)
    if not edns:
        return query
    return query[:10] + struct.pack("!H", 1) + query[12:] + b"\0" + struct.pack("!2HIH", 41, 1232, 0, 0)


@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_answers_are_those_of_knot(host, knot, tcp, edns):
    for name, kind, values in RECORDS:
        host.call("dns.add", name=name, type=kind, values=values)
    guest = host.attach_guest("asker")
    exchange = dns.exchange_tcp if tcp else dns.exchange_udp
    wrong, compared = [], 0
    for name, kind in itertools.product(NAMES, KINDS):
        request = request_of(f"{name}.moat.internal", kind, edns)
        ours = fields(exchange(guest, guest.gateway, request))
        theirs = fields(exchange(knot, topology.INTERNET, request, port=5353))
        compared += 1
        if ours != theirs:
            wrong.append(f"{name} {kind}:\n   moat {ours}\n   knot {theirs}")
    assert not wrong, f"{len(wrong)} of {compared} differ:\n" + "\n".join(wrong[:20])
