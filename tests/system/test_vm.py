# SPDX-License-Identifier: GPL-2.0-or-later
"""Real virtual machines on moat's taps."""

import os

import pytest

import qemu
import servers
import topology
from wait import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.limit(180)]

QEMU_USER = 4242


@pytest.fixture(scope="module")
def image():
    try:
        made = qemu.Image()
    except qemu.Missing as reason:
        pytest.skip(f"no virtual machine: {reason}")
    yield made
    made.close()


@pytest.fixture
def boot(host, image):
    """boot(NAME, …): a machine on the tap of that guest, its link up."""
    running = []

    def start(name, **kwargs):
        info = host.call("guest.get", name=name)
        card = info["vmm"]["interfaces"][0]
        kwargs.setdefault("netdev", f"ifname={card['tap']},script=no,downscript=no")
        machine = qemu.VirtualMachine(host, image, card["mac"], **kwargs)
        running.append(machine)
        if not kwargs.get("append"):
            machine.run("ip link set eth0 up")
        return machine

    yield start
    for machine in running:
        print(machine.transcript)
        machine.close()


@pytest.fixture
def tun_for_all(host):
    """On Debian everybody may open /dev/net/tun; here it may be root's alone. The host gets a node of its own."""
    host.run("sh", "-ec", "mknod -m 666 /run/tun c 10 200; mount --bind /run/tun /dev/net/tun")
    yield
    host.run("sh", "-ec", "umount -l /dev/net/tun; rm /run/tun")


def lease(machine):
    machine.run("udhcpc -i eth0 -s /dhcp -n -q -t 10 -T 1 -O search -O mtu", timeout=60)


def test_a_session(host, boot, tun_for_all):
    """QEMU runs as somebody, and opens the tap by its name."""
    host.moat("attach", "vm", "--network", "default", "--tap=tap-vm", "--tap-owner", str(QEMU_USER), "-p", "8080:80")
    web = host.attach_guest("web")
    machine = boot("vm", user=QEMU_USER)
    info = host.call("guest.get", name="vm")
    address = info["endpoints"][0]["ip"]
    lease(machine)
    assert f"inet {address}/16" in machine.run("ip -4 address show dev eth0")
    assert machine.run("hostname") == "vm"
    assert machine.ping("10.88.0.1") and machine.ping(topology.INTERNET)
    assert machine.ping(web.ip_address) and web.ping(address)
    assert web.ip_address in machine.run("nslookup web.moat.internal")
    with servers.TcpServer(web, 7777, name="web") as server:
        assert "web" in machine.run(f"echo | timeout 5 nc {web.ip_address} 7777", check=False)
        assert server.clients[0][0] == address
    page = machine.run(f"printf 'GET /bytes/200000 HTTP/1.0\\r\\n\\r\\n' | timeout 20 nc {topology.INTERNET} 80 | wc -c")
    assert int(page.split()[-1]) > 10
    machine.run("httpd -p 80 -h /www")
    for client, where in ((host.world.lan, topology.HOST), (host, "127.0.0.1"), (host, "::1"), (web, topology.HOST)):
        assert b"the page of the machine" in wait_for(lambda: _get(client, where), 5, f"the page from {where}")


def _get(net, address):
    try:
        with servers.connect(net, address, 8080) as sock:
            sock.settimeout(5 * PATIENCE)
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            data = b""
            while chunk := sock.recv(4096):
                data += chunk
            return data
    except OSError:
        return None


def test_by_a_passed_descriptor(host, boot):
    """A VMM that may open nothing: the tap is handed to it."""
    connection = host.rpc()
    connection.call("guest.attach", name="vm", kind="tap", networks=[{"name": "default"}], tap={"fd": True, "vnet_hdr": True})
    tap = connection.fds.pop()
    try:
        machine = boot("vm", user=QEMU_USER, netdev=f"fd={tap}", pass_fds=[tap])
    finally:
        os.close(tap)
    lease(machine)
    assert machine.ping(topology.INTERNET)


def test_the_kernels_argument(host, boot):
    """No DHCP: the kernel is told by what `attach --json` says."""
    guest = host.moat("attach", "vm", "--network", "default", "--tap", "--json").json
    argument = guest["vmm"]["kernel_ip"]
    card = guest["vmm"]["interfaces"][0]
    machine = boot("vm", append=argument)
    assert argument in machine.run("cat /proc/cmdline")
    address, gateway = argument.removeprefix("ip=").split(":")[0], argument.split(":")[2]
    # The driver is a module here: what a kernel with a built-in one does is done by hand.
    machine.run(f"ip link set eth0 up; ip address add {card['address']} dev eth0; ip route add default via {gateway}")
    assert address == guest["endpoints"][0]["ip"] and machine.ping(topology.INTERNET)


def test_dual_stack(host, image, boot):
    """Route and DNS by router advertisement, the address by DHCPv6."""
    if not image.dhclient:
        pytest.skip("isc-dhcp-client is not installed")
    host.moat("net", "create", "six", "--ipv6")
    host.moat("attach", "vm", "--network", "six", "--tap", "-p", "8080:80")
    peer = host.attach_guest("peer", network="six")
    machine = boot("vm")
    lease(machine)
    wait_for(lambda: "fe80::1" in machine.run("ip -6 route show default"), 15, "the router's advertisement", 0.5)
    wait_for(lambda: "tentative" not in machine.run("ip -6 address show dev eth0"), 10, "the link-local address", 0.5)
    machine.run(f"{image.dhclient} -6 -1 -cf /dev/null -lf /tmp/l -pf /tmp/p -sf /dhcp6 eth0", timeout=60)
    wait_for(lambda: "tentative" not in machine.run("ip -6 address show dev eth0"), 10, "the address", 0.5)
    address = host.call("guest.get", name="vm")["endpoints"][0]["ip6"]
    assert [line.split()[1] for line in machine.run("ip -6 address show dev eth0 scope global").split("\n") if "inet6" in line] \
        == [f"{address}/128"]
    assert machine.ping(topology.INTERNET6) and machine.ping(peer.endpoint()["ip6"]) and peer.ping(address)
    machine.run("httpd -p '[::]:80' -h /www")
    assert b"the page of the machine" in wait_for(lambda: _get(host.world.lan, topology.HOST6), 5, "the page by IPv6")


def test_two_machines(host, boot):
    """They know each other by name, through a restart of moatd."""
    for name in ("one", "two"):
        host.moat("attach", name, "--network", "default", "--tap")
    one, two = boot("one"), boot("two")
    lease(one)
    lease(two)
    address = host.call("guest.get", name="two")["endpoints"][0]["ip"]
    assert one.ping(address) and address in one.run("nslookup two.moat.internal")
    host.restart(crash=True)
    assert one.ping(address) and two.ping(topology.INTERNET)
    host.moat("detach", "two")
    assert not one.ping(address)
