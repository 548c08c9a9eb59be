# SPDX-License-Identifier: GPL-2.0-or-later
"""What moat is compared with: other name servers, unpacked and not installed, with the same records; and what of an
answer is compared."""

import contextlib
import glob
import os
import shutil
import struct
import subprocess

import pytest

import dns
from wait import wait_for

RECORDS = [
    ("db", "A", ["192.0.2.1", "192.0.2.2"]), ("db", "AAAA", ["2001:db8::1"]), ("db", "TXT", ["one two"]),
    ("a.b.c", "A", ["192.0.2.3"]), ("www", "CNAME", ["db"]), ("chain", "CNAME", ["www"]), ("dangling", "CNAME", ["nobody"]),
    ("*.apps", "A", ["192.0.2.4"]), ("own.apps", "TXT", ["exists"]), ("deep.own.apps", "A", ["192.0.2.5"]), ("*.alias", "CNAME", ["db"]),
    ("_sip._tcp.db", "SRV", ["10 5 5060 db", "20 5 5061 www"]), ("none", "SRV", ["0 0 0 ."]), ("long", "TXT", ["x" * 300]),
]

NAMES = ["db", "DB", "dB", "a.b.c", "b.c", "c", "x.b.c", "www", "chain", "dangling", "nobody", "x.db", "apps", "x.apps", "y.x.apps", "own.apps",
         "x.own.apps", "deep.own.apps", "*.apps", "x.*.apps", "alias", "x.alias", "_sip._tcp.db", "_tcp.db", "x._tcp.db", "none", "long"]
KINDS = ["A", "AAAA", "CNAME", "TXT", "SRV", "MX", "NS", 65, 65280]


@contextlib.contextmanager
def unpacked(tmp_path_factory, name, packages):
    """A directory with the packages' files; installing could start services or change the machine."""
    directory = str(tmp_path_factory.mktemp(name))
    outcome = subprocess.run(["apt-get", "-q", "download", *packages], cwd=directory, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        pytest.skip(f"the packages can't be had: {outcome.stderr.strip()[:200]}")
    for package in glob.glob(os.path.join(directory, "*.deb")):
        subprocess.run(["dpkg", "-x", package, directory], check=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class Server:
    """A program in a namespace, until it is closed."""

    def __init__(self, net, directory, *command, address, port, name):
        self.net, self.address, self.port = net, address, port
        libraries = {"LD_LIBRARY_PATH": ":".join(glob.glob(f"{directory}/usr/lib/*-linux-gnu"))}
        self.process = net.popen(f"{directory}/usr/sbin/{command[0]}", *map(str, command[1:]), env=libraries,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: self._answers(name), 10, lambda: f"{command[0]}; it ended with {self.process.poll()}")
        except BaseException:
            self.close()
            raise

    def _answers(self, name):
        try:
            return dns.ask(self.net, self.address, name, port=self.port, timeout=0.3).rcode == "NOERROR"
        except OSError:
            return False

    def close(self):
        self.process.kill()
        self.process.communicate()


KNOT_PACKAGES = ("knot", "libknot13", "libzscanner4", "libdnssec9", "liblmdb0", "libfstrm0", "liburcu8", "libedit2", "libmaxminddb0",
                 "libxdp1", "libbpf1")


def knot_start(net, directory, tmp_path, address, port, domain, zone):
    """A knotd that serves the zone's text; it has a name "db"."""
    (tmp_path / f"{domain}.zone").write_text(zone, encoding="ascii")
    (tmp_path / "knot.conf").write_text(f"""
server:
    rundir: {tmp_path}
    listen: {address}@{port}
    user: root
database:
    storage: {tmp_path}
zone:
  - domain: {domain}
    storage: {tmp_path}
    file: {domain}.zone
""", encoding="ascii")
    return Server(net, directory, "knotd", "-c", tmp_path / "knot.conf", address=address, port=port, name=f"db.{domain}")


def fields(data):
    """What both should agree on."""
    answer = dns.Answer(data)
    soa = [record.name.lower() for record in answer.authority if record.type == "SOA"]
    opt = [record for record in answer.additional if record.type == 41]
    records = sorted((r.name, r.type, str(r.data).lower()) for r in answer.answers)
    return {"rcode": answer.rcode, "aa": answer.authoritative, "tc": answer.truncated, "question": answer.question,
            "answers": [] if answer.truncated else records, "soa": soa if not answer.truncated else [], "opt": len(opt)}


def request_of(name, kind, edns, recurse=False, ident=77):
    query = dns.query_bytes(name, kind, ident=ident, recurse=recurse)
    if not edns:
        return query
    return query[:10] + struct.pack("!H", 1) + query[12:] + b"\0" + struct.pack("!2HIH", 41, 1232, 0, 0)


def compare(questions, ours, theirs, edns, recurse=False):
    """ours, theirs: what a request is answered with. Texts of what differs, and how much was compared."""
    wrong, compared = [], 0
    for name, kind in questions:
        request = request_of(name, kind, edns, recurse)
        one, other = fields(ours(request)), fields(theirs(request))
        compared += 1
        if one != other:
            wrong.append(f"{name} {kind}:\n   moat  {one}\n   other {other}")
    return wrong, compared
