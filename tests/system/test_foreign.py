# SPDX-License-Identifier: GPL-2.0-or-later
"""A running container of somebody else's runtime joins a network: one more interface, our name server, localhost.

The container is made by hand: namespaces of its own for network, mounts and processes, a root file system of its
own, an eth0 with a default route to its own runtime's network, and a resolv.conf.
"""

import os
import subprocess

import pytest

import dns
import servers
import topology
from netns import Net, environment
from wait import wait_for

RESOLV_CONF = "# made by the runtime\nnameserver 192.0.2.53\nsearch corp.example\noptions ndots:2\n"
BLOCK = "# moat: begin\nnameserver {}\n# moat: end\n"


class Container(Net):
    """Beside it stands its runtime's own network: 172.29.0.0/24, whose gateway (.1) answers for everything."""

    def __init__(self, host, directory, user=None, name="eth0", route=True):
        self.host = host
        self.root = os.path.join(directory, "root")
        for folder in ("etc", "proc", "tmp", "bin", "usr", "lib", "lib64", "sbin", "run"):
            os.makedirs(os.path.join(self.root, folder), exist_ok=True)
        self.write("etc/resolv.conf", RESOLV_CONF)
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        if user is not None:
            for top, folders, files in os.walk(self.root):
                for item in [top] + [os.path.join(top, file) for file in files]:
                    os.chown(item, user, user)
        script = f"""
            mount --make-rprivate /
            mount --bind {self.root} {self.root}
            for d in usr lib lib64 bin sbin; do test -e /$d && mount --rbind /$d {self.root}/$d; done
            mount -t proc proc {self.root}/proc
            cd {self.root}
            pivot_root . tmp
            umount -l /tmp
            echo ready
            exec sleep infinity
            """
        enter = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"] if user is not None else []
        argv = [*enter, "unshare", *(["--map-root-user"] if user is not None else []), "--net", "--mount", "--pid", "--fork",
                "--kill-child", "sh", "-ec", script]
        self.process = subprocess.Popen(argv, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n", "the container did not start"
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            self.pid = int(file.read().split()[0])
        super().__init__(f"/proc/{self.pid}/ns/net")
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", name, "type", "veth", "peer", "name", "runtime")
        self.ip("address", "add", "172.29.0.2/24", "dev", name)
        self.ip("link", "set", "runtime", "up")
        self.ip("link", "set", name, "up")
        if route:
            self.ip("route", "add", "default", "via", "172.29.0.1", "metric", "100")

    def path(self, path):
        return os.path.join(self.root, path)

    def write(self, path, text):
        with open(self.path(path), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, path="etc/resolv.conf"):
        with open(self.path(path), encoding="utf-8") as file:
            return file.read()

    def sh(self, script, check=True):
        """A command inside, as the runtime's own `exec` would do it."""
        done = subprocess.run(["nsenter", "-t", str(self.pid), "-a", "--", "sh", "-c", script], env=environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        assert not check or done.returncode == 0, f"{script}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def make(host):
    made = []

    def make(**kwargs):
        made.append(Container(host, host.temporary(f"container{len(made)}"), **kwargs))
        return made[-1]

    yield make
    for container in made:
        container.close()


@pytest.fixture
def container(make):
    return make()


def attach(host, container, *options, network="default", **kwargs):
    return host.moat("attach", "box", "--network", network, "--pid", container.pid, *options, **kwargs)


# The interface

def test_it_gets_one_more_interface_and_keeps_its_own(host, container):
    before = container.links()["eth0"], container.ip_json("route", "show")
    attach(host, container)
    endpoint, = host.call("guest.get", name="box")["endpoints"]
    assert endpoint["interface"] == "eth1" and container.addresses("eth1") == [endpoint["ip"]]
    assert container.links()["eth0"] == before[0], "the runtime's own link was changed"
    assert [r for r in container.ip_json("route", "show") if r["dev"] != "eth1"] == before[1]
    assert [r["dev"] for r in container.ip_json("route", "show") if r["dst"] == "default"] == ["eth0"]
    peer = host.attach_guest("peer")
    assert container.ping(peer.ip_address) and peer.ping(endpoint["ip"])
    host.moat("detach", "box")
    wait_for(lambda: "eth1" not in container.links(), 3, "the link to be gone")
    assert container.ip_json("route", "show") == before[1]


def test_without_a_route_of_its_own_it_gets_ours(host, make):
    container = make(route=False)
    attach(host, container)
    default, = [r for r in container.ip_json("route", "show") if r["dst"] == "default"]
    assert default["dev"] == "eth1" and container.ping(topology.INTERNET)


def test_names_that_are_taken_in_the_middle(host, make):
    container = make(name="eth1")
    for name in ("blue", "green"):
        host.call("network.create", name=name)
    attach(host, container, "--network", "blue")
    host.moat("attach", "box", "--network", "green")
    assert [e["interface"] for e in host.call("guest.get", name="box")["endpoints"]] == ["eth0", "eth2", "eth3"]
    host.moat("detach", "box", "--network", "default")
    assert [r["dev"] for r in container.ip_json("route", "show") if r["dst"] == "default"] == ["eth1"], \
        "a route of somebody else was replaced"


def test_its_ipv6_route_stays(host, make):
    container = make(route=False)
    container.sysctl("ipv6/conf/eth0/accept_dad", 0)
    container.ip("-6", "address", "add", "fd00:29::2/64", "dev", "eth0", "nodad")
    container.ip("-6", "route", "add", "default", "via", "fd00:29::1", "dev", "eth0", "metric", "512")
    host.moat("net", "create", "six", "--ipv6")
    attach(host, container, network="six")
    assert [r["dev"] for r in container.ip_json("-6", "route", "show", "default")] == ["eth0"]
    assert [r["dev"] for r in container.ip_json("route", "show", "default")] == ["eth1"]


def test_a_published_port(host, container):
    """Answers go where the container's default route leads: who asks as the gateway is answered."""
    attach(host, container, "-p", "8080:80")
    peer = host.attach_guest("peer")
    with servers.TcpServer(container, 80, name="box"):
        for client, address in ((host, "127.0.0.1"), (host, "::1"), (peer, "10.88.0.1"), (peer, topology.HOST)):
            assert servers.tcp_greeting(client, address, 8080)[0] == "box", (client, address)


# resolv.conf

def test_our_name_server_comes_first_until_detach(host, container):
    peer = host.attach_guest("web")
    attach(host, container, "--dns-inject")
    assert container.read() == BLOCK.format("10.88.0.1") + RESOLV_CONF
    assert container.sh("getent ahostsv4 web").split()[0] == peer.ip_address
    assert container.sh("getent ahostsv4 www.example.org").split()[0] == topology.INTERNET
    host.moat("detach", "box")
    assert container.read() == RESOLV_CONF


def test_the_file_itself_stays(host, container):
    """It is a mount in most containers, and nothing may be put in its place."""
    os.chmod(container.path("etc/resolv.conf"), 0o640)
    before = os.stat(container.path("etc/resolv.conf"))
    attach(host, container, "--dns-inject")
    after = os.stat(container.path("etc/resolv.conf"))
    assert (before.st_ino, before.st_mode, before.st_uid) == (after.st_ino, after.st_mode, after.st_uid)
    assert sorted(os.listdir(container.path("etc"))) == ["hosts", "resolv.conf"]


def test_what_others_write_meanwhile_stays(host, container):
    attach(host, container, "--dns-inject")
    container.write("etc/resolv.conf", "options edns0\n" + container.read() + "# last\n")
    host.moat("detach", "box")
    assert container.read() == "options edns0\n" + RESOLV_CONF + "# last\n"


def test_a_rewritten_file_is_ours_again_after_a_restart(host, container):
    attach(host, container, "--dns-inject")
    container.write("etc/resolv.conf", RESOLV_CONF)
    host.restart()
    assert container.read() == BLOCK.format("10.88.0.1") + RESOLV_CONF
    host.restart(crash=True)
    assert container.read() == BLOCK.format("10.88.0.1") + RESOLV_CONF
    host.moat("detach", "box")
    assert container.read() == RESOLV_CONF


def test_it_follows_the_networks(host, container):
    host.call("network.create", name="blue", subnet="10.9.0.0/24")
    host.call("network.create", name="mute", subnet="10.10.0.0/24", dns=False)
    attach(host, container, "--dns-inject", network="mute", check=False)
    host.moat("attach", "box", "--network", "default", "--network", "mute", "--pid", container.pid, "--dns-inject")
    host.moat("attach", "box", "--network", "blue")
    assert container.read().startswith("# moat: begin\nnameserver 10.88.0.1\nnameserver 10.9.0.1\n# moat: end\n")
    host.moat("detach", "box", "--network", "default")
    assert container.read() == BLOCK.format("10.9.0.1") + RESOLV_CONF
    host.moat("detach", "box", "--network", "blue")
    assert container.read() == RESOLV_CONF


def test_teardown_and_removed_networks_undo_it_too(host, container):
    attach(host, container, "--dns-inject")
    host.moat("net", "create", "blue")
    host.moat("detach", "box")
    attach(host, container, "--dns-inject", network="blue")
    host.moat("net", "rm", "--force", "blue")
    assert container.read() == RESOLV_CONF
    attach(host, container, "--dns-inject")
    host.moat("teardown", "--yes")
    assert container.read() == RESOLV_CONF


@pytest.mark.parametrize("restart", [False, True])
def test_a_container_that_ended_has_its_file_as_before(host, container, restart):
    """The file is on the disk still, and the runtime may start the container again."""
    attach(host, container, "--dns-inject")
    if restart:
        host.restart(crash=True)
    container.close()
    wait_for(lambda: host.guest_names() == [], 5, "the guest to be gone")
    assert container.read() == RESOLV_CONF
    assert "resolv.conf" not in host.daemon.log()


def test_links_lead_nowhere_out_of_the_root(host, container):
    """An absolute link means a path inside; one that climbs stays inside as well."""
    outside = host.temporary("outside")
    victim = os.path.join(outside, "victim")
    with open(victim, "w", encoding="ascii") as file:
        file.write("untouched\n")
    resolv = container.path("etc/resolv.conf")
    for target in (victim, "../" * 30 + victim.lstrip("/"), "/proc/1/root" + victim):
        os.unlink(resolv)
        os.symlink(target, resolv)
        host.refused("attach", "box", "--network", "default", "--pid", container.pid, "--dns-inject", says="resolv.conf")
        assert open(victim, encoding="ascii").read() == "untouched\n" and host.guest_names() == []
        wait_for(lambda: set(container.links()) == {"lo", "eth0", "runtime"}, 3, "the link to be gone")
    os.unlink(resolv)
    os.makedirs(container.path("run/resolve"))
    container.write("run/resolve/stub.conf", RESOLV_CONF)
    os.symlink("/run/resolve/stub.conf", resolv)
    attach(host, container, "--dns-inject")
    assert container.read("run/resolve/stub.conf").startswith("# moat: begin") and os.path.islink(resolv)
    host.moat("detach", "box")
    assert container.read("run/resolve/stub.conf") == RESOLV_CONF


@pytest.mark.parametrize("make_it, word", [
    ("rm /etc/resolv.conf", "no /etc/resolv.conf"), ("rm /etc/resolv.conf; mkdir /etc/resolv.conf", "no regular file"),
    ("rm /etc/resolv.conf; mkfifo /etc/resolv.conf", "no regular file"), ("rm /etc/resolv.conf; ln -s resolv.conf /etc/resolv.conf", ""),
    ("seq 1 20000 >/etc/resolv.conf", "65536"),
    ("mount --bind /etc/resolv.conf /etc/resolv.conf; mount -o remount,bind,ro /etc/resolv.conf", "can't be written"),
])
def test_files_that_can_not_be_written(host, container, make_it, word):
    container.sh(make_it)
    links, before = set(container.links()), host.kernel()
    host.refused("attach", "box", "--network", "default", "--pid", container.pid, "--dns-inject", says=word)
    assert host.guest_names() == []
    wait_for(lambda: set(container.links()) == links, 3, "the link to be gone")
    wait_for(lambda: not before.differences(host.kernel()), 3, lambda: "\n".join(before.differences(host.kernel())))


def test_the_hosts_own_file_is_never_changed(host):
    before = host.read("/etc/resolv.conf")
    process = host.popen("unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity", stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        host.refused("attach", "box", "--network", "default", "--pid", process.pid, "--dns-inject", says="host's own")
        assert host.read("/etc/resolv.conf") == before
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_container_of_an_unprivileged_user(host, make):
    """Its root is user 12345 outside: the file is written as that user, and with no more rights than his."""
    container = make(user=12345)
    os.chmod(host.run_dir, 0o755)
    os.chmod(host.socket_path, 0o666)
    attach(host, container, "--dns-inject", user=12345)
    assert container.read() == BLOCK.format("10.88.0.1") + RESOLV_CONF
    host.moat("detach", "box", user=12345)
    assert container.read() == RESOLV_CONF
    # A file of the real root that is shown inside can't be written by him, and so not by us.
    secret = os.path.join(host.temporary("secret"), "file")
    with open(secret, "w", encoding="ascii") as file:
        file.write("untouched\n")
    os.chown(container.path("etc/resolv.conf"), 0, 0)
    host.refused("attach", "box", "--network", "default", "--pid", container.pid, "--dns-inject", says="can't be written")
    assert container.read() == RESOLV_CONF
    host.refused("attach", "box", "--network", "default", "--pid", container.pid, "--dns-inject", user=12346, says="12345")


def test_what_is_needed_for_it(host, container):
    host.call("network.create", name="mute", dns=False)
    error = host.error("guest.attach", name="box", kind="netns", netns=container.net_path, dns_inject=True)
    assert error.field == "dns_inject" and "pid" in error.message
    error = host.error("guest.attach", name="box", kind="netns", pid=container.pid, dns_inject=True, networks=[{"name": "mute"}])
    assert error.field == "dns_inject" and "name service" in error.message
    error = host.error("guest.attach", name="box", kind="tap", dns_inject=True)
    assert error.field == "dns_inject"
    attach(host, container)
    error = host.error("guest.attach", name="box", dns_inject=True, networks=[{"name": "mute"}])
    assert error.field == "dns_inject"
    assert container.read() == RESOLV_CONF


# localhost

def test_localhost_reaches_what_is_published_on_the_gateway(host, container):
    web = host.attach_guest("web", "-p", "8082:80", "-p", "8083:81/udp")
    attach(host, container, "--dns-inject")
    with servers.TcpServer(web, 80, name="web"), servers.UdpServer(web, 81, web.ip_address, name="web-udp"):
        host.moat("localhost", "box", "on")
        assert servers.tcp_greeting(container, "127.0.0.1", 8082)[0] == "web"
        assert servers.udp_greeting(container, "127.0.0.1", 8083)[0] == "web-udp"
        with servers.TcpServer(container, 8082, address="127.0.0.1", name="own"):
            assert servers.tcp_greeting(container, "127.0.0.1", 8082)[0] == "own", "a local listener goes before"
        with servers.UdpServer(container, 8083, "127.0.0.1", name="own-udp"):
            assert servers.udp_greeting(container, "127.0.0.1", 8083)[0] == "own-udp"
        host.moat("localhost", "box", "off")
        assert servers.unreachable(container, "tcp", "127.0.0.1", 8082)


def test_curl_localhost(host, container):
    """As it is typed."""
    web = host.attach_guest("web", "-p", "8082:80")
    attach(host, container)
    host.moat("localhost", "box", "on")
    with servers.HttpServer(web, 80, web.ip_address, "web"):
        assert container.sh("curl -sS -m 5 http://localhost:8082/") == "hello from web\n"


def test_localhost_follows_to_the_next_network(host, container):
    host.call("network.create", name="blue")
    web = host.attach_guest("web", "-p", "8082:80", network="blue")
    attach(host, container, "--network", "blue")
    host.moat("localhost", "box", "on")
    with servers.TcpServer(web, 80, name="web"):
        assert servers.tcp_greeting(container, "127.0.0.1", 8082)[0] == "web"
        host.moat("detach", "box", "--network", "default")
        assert servers.tcp_greeting(container, "127.0.0.1", 8082)[0] == "web"


def test_detach_takes_localhost_out_of_the_container(host, container):
    before = container.run("nft", "list", "ruleset")
    attach(host, container)
    host.moat("localhost", "box", "on")
    assert "moat_localhost" in container.run("nft", "list", "ruleset")
    host.moat("detach", "box")
    assert container.run("nft", "list", "ruleset") == before


def test_localhost_is_whole_again_after_its_link_was_deleted(host, container):
    web = host.attach_guest("web", "-p", "8082:80")
    attach(host, container)
    host.moat("localhost", "box", "on")
    container.ip("link", "delete", "eth1")
    wait_for(lambda: container.addresses("eth1") if "eth1" in container.links() else None, 5, "the link to be back")
    with servers.TcpServer(web, 80, name="web"):
        wait_for(lambda: not servers.unreachable(container, "tcp", "127.0.0.1", 8082), 5, "localhost to be back")
