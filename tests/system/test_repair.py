# SPDX-License-Identifier: GPL-2.0-or-later
"""What others change of what is ours is put right without anybody asking."""

import pytest

import servers
import topology
from wait import wait_for


@pytest.fixture
def six(host):
    host.moat("net", "create", "six", "--ipv6")
    return host.call("network.get", name="six")


@pytest.fixture
def far(outside):
    """By family, a server outside."""
    addresses = {4: topology.INTERNET, 6: topology.INTERNET6}
    with servers.TcpServer(outside, 77, topology.INTERNET), servers.TcpServer(outside, 77, topology.INTERNET6):
        yield addresses


def reaches(net, address, port=77):
    return not servers.unreachable(net, "tcp", address, port, 0.2)


# Routes

@pytest.mark.parametrize("family", [4, 6])
def test_host_routes(host, six, far, family):
    guest = host.attach_guest("g", "--mode", "outbound", network="six")
    assert reaches(guest, far[family])
    host.ip(f"-{family}", "route", "flush", "proto", "109")
    wait_for(lambda: host.ip(f"-{family}", "route", "show", "proto", "109"), 1, "the host route")
    wait_for(lambda: reaches(guest, far[family]), 1, "the way out and back")
