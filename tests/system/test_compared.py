# SPDX-License-Identifier: GPL-2.0-or-later
"""The same records, the same questions: the name service and Knot DNS are compared field by field.

Where both should agree: rcode, AA, the question as asked, the answers (owner, type, data), the owner of a negative answer's
SOA, EDNS. Where they need not: TTLs, the SOA's own data, the order of records, referrals.
"""

import itertools

import pytest

import compared
import dns
import topology
from compared import KINDS, NAMES, RECORDS

@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    with compared.unpacked(tmp_path_factory, "knot", compared.KNOT_PACKAGES) as directory:
        yield directory


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
    server = compared.knot_start(world.outside, programs, tmp_path, topology.INTERNET, 5353, "moat.internal", zone_text())
    yield server
    server.close()


@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_answers_are_those_of_knot(host, knot, tcp, edns):
    for name, kind, values in RECORDS:
        host.call("dns.add", name=name, type=kind, values=values)
    guest = host.attach_guest("asker")
    exchange = dns.exchange_tcp if tcp else dns.exchange_udp
    questions = [(f"{name}.moat.internal", kind) for name, kind in itertools.product(NAMES, KINDS)]
    wrong, count = compared.compare(questions, lambda request: exchange(guest, guest.gateway, request),
                                    lambda request: exchange(knot.net, knot.address, request, port=knot.port), edns)
    assert not wrong, f"{len(wrong)} of {count} differ:\n" + "\n".join(wrong[:20])
