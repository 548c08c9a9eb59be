# SPDX-License-Identifier: GPL-2.0-or-later
"""The same questions to the name service and to unbound: records of their own, and what both forward to the same server,
compared field by field.

Unbound's local data knows neither wildcards nor aliases that are followed: these are compared with Knot DNS
(test_compared.py), and here where they come from upstream.
"""

import itertools

import pytest

import compared
import dns
import topology
from compared import KINDS, NAMES, RECORDS
from wait import wait_for

PACKAGES = ("unbound", "libevent-2.1-7", "libhiredis0.14", "libnghttp2-14", "libprotobuf-c1", "libpython3.11", "libexpat1",
            *compared.KNOT_PACKAGES)
PORT = 5354

# The outside, as Knot DNS serves it.
ZONE = f"""$ORIGIN corp.example.
$TTL 600
@ SOA host hostmaster 1 3600 600 86400 300
@ NS host
host A 192.0.2.1
db A 192.0.2.2
db A 192.0.2.3
db AAAA 2001:db8::2
www CNAME db
chain CNAME www
dangling CNAME nobody
gone CNAME nobody.moved
a.b.c A 192.0.2.4
*.apps A 192.0.2.5
own.apps TXT "exists"
*.alias CNAME db
_sip._tcp.db SRV 10 5 5060 db
_sip._tcp.db SRV 20 5 5061 www
text TXT "one" "two"
long TXT "{'x' * 255}" "{'y' * 255}" "{'z' * 255}"
""" + "".join(f"many A 192.0.3.{i}\n" for i in range(1, 101)) + "".join(f"lots A 192.0.4.{i}\n" for i in range(1, 41))
OUTSIDE = ["@", "host", "db", "DB", "www", "chain", "dangling", "gone", "a.b.c", "b.c", "nobody", "x.nobody", "x.apps", "y.x.apps", "own.apps",
           "x.alias", "_sip._tcp.db", "_tcp.db", "text", "long", "many", "lots"]
TYPES = ["A", "AAAA", "CNAME", "TXT", "SRV", "NS", 65280]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    with compared.unpacked(tmp_path_factory, "unbound", PACKAGES) as directory:
        yield directory


@pytest.fixture
def unbound(world, programs, tmp_path):
    """Starts one in the outside, with this text in its configuration."""
    servers = []

    def start(server_text, more, name):
        (tmp_path / "unbound.conf").write_text(f"""
server:
  interface: {topology.INTERNET}
  port: {PORT}
  access-control: 0.0.0.0/0 allow
  do-not-query-localhost: no
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{tmp_path}"
  module-config: "iterator"
  minimal-responses: no
{server_text}
remote-control:
  control-enable: no
{more}""", encoding="ascii")
        servers.append(compared.Server(world.outside, programs, "unbound", "-d", "-c", tmp_path / "unbound.conf", address=topology.INTERNET,
                                       port=PORT, name=name))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def corp(world, programs, tmp_path):
    """Whom both forward to."""
    server = compared.knot_start(world.outside, programs, tmp_path, topology.INTERNET, 53, "corp.example", ZONE)
    yield server
    server.close()


def local_data(name, kind, value):
    if kind == "TXT":
        value = " ".join(f'"{value[i:i + 255]}"' for i in range(0, len(value), 255))
        return f"  local-data: '{name}.moat.internal. 5 TXT {value}'\n"
    if kind == "SRV" and value.split()[3] != ".":
        value += ".moat.internal."
    return f'  local-data: "{name}.moat.internal. 5 {kind} {value}"\n'


def plain(name):
    return not name.startswith("*")


def differences(exchange, guest, other, questions, edns, recurse):
    return compared.compare(questions, lambda request: exchange(guest, guest.gateway, request),
                            lambda request: exchange(other.net, other.address, request, port=other.port), edns, recurse)


@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_local_data(host, unbound, tcp, edns):
    records = [record for record in RECORDS if plain(record[0]) and record[1] != "CNAME"]
    for name, kind, values in records:
        host.call("dns.add", name=name, type=kind, values=values)
    other = unbound('  local-zone: "moat.internal." static\n'
                    '  local-data: "moat.internal. 5 SOA host.moat.internal. hostmaster.moat.internal. 1 3600 600 86400 5"\n'
                    + "".join(local_data(name, kind, value) for name, kind, values in records for value in values), "", "db.moat.internal")
    guest = host.attach_guest("asker")
    names = [name for name in NAMES if "apps" not in name and "alias" not in name]
    questions = [(f"{name}.moat.internal", kind) for name, kind in itertools.product(names, KINDS)]
    wrong, count = differences(dns.exchange_tcp if tcp else dns.exchange_udp, guest, other, questions, edns, False)
    assert not wrong, f"{len(wrong)} of {count} differ:\n" + "\n".join(wrong[:20])
    print(f"compared: {count} answers, none differs")


@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_forwarded_and_cached(host, unbound, corp, tcp, edns):
    host.configure(f"[dns]\nupstreams = {topology.INTERNET}\n")
    host.restart()
    other = unbound("", f"""forward-zone:
  name: "."
  forward-addr: {topology.INTERNET}
""", "host.corp.example")
    guest = host.attach_guest("asker")
    exchange = dns.exchange_tcp if tcp else dns.exchange_udp
    questions = [(f"{name}.corp.example".replace("@.", ""), kind) for name, kind in itertools.product(OUTSIDE, TYPES)]
    for asked in ("forwarded", "cached"):
        wrong, count = differences(exchange, guest, other, questions, edns, True)
        assert not wrong, f"{asked}: {len(wrong)} of {count} differ:\n" + "\n".join(wrong[:20])
        print(f"compared, {asked}: {count} answers, none differs")
    wait_for(lambda: host.call("system.status")["dns"]["cached"] >= count * 0.9, 5,
             lambda: f"the second time from the cache: {host.call('system.status')['dns']}")
