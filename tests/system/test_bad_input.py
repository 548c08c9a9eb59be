# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input: every option and every RPC member, what it is answered with, and that nothing changed.

Each row is one value. For a command: its arguments, the exit code, words of the message. For the RPC: the member, the
value, and either the field that is named (-32602) or the reason (-32000).
"""

import pytest

import daemon
import rpc

LONG = "x" * 300


@pytest.fixture
def ready(host):
    """A host with a network, a guest that publishes a port, and a namespace that is not attached."""
    host.call("network.create", name="blue", subnet="10.9.0.0/24", bridge="br-blue")
    host.attach_guest("web", "-p", "8080:80", network="default,mac=02:00:00:00:00:05")
    host.attach_guest("out", "--mode", "outbound")
    host.free = host.guest_space("free")
    return host


def intent(host):
    return [host.call(method) for method in ("network.list", "guest.list", "port.list", "dns.list")]


# Commands

USAGE, REFUSED = 2, 1

NET_CREATE = [
    (["net", "create"], USAGE, "NAME"),
    (["net", "create", "a", "b"], USAGE, "b"),
    (["net", "create", ""], USAGE, ""),
    (["net", "create", "Blue2"], USAGE, "Blue2"),
    (["net", "create", "-blue"], USAGE, "blue"),
    (["net", "create", "blue-"], USAGE, "blue-"),
    (["net", "create", "bl_ue"], USAGE, "bl_ue"),
    (["net", "create", "bl.ue"], USAGE, "bl.ue"),
    (["net", "create", "bl ue"], USAGE, "bl ue"),
    (["net", "create", "blü"], USAGE, ""),
    (["net", "create", "x" * 64], USAGE, ""),
    (["net", "create", LONG], USAGE, ""),
    (["net", "create", "../etc"], USAGE, "../etc"),
    (["net", "create", "blue"], REFUSED, "blue"),
    (["net", "create", "n", "--subnet"], USAGE, "subnet"),
    (["net", "create", "n", "--subnet", ""], USAGE, ""),
    (["net", "create", "n", "--subnet", "10.1.0.0"], USAGE, "10.1.0.0"),
    (["net", "create", "n", "--subnet", "10.1.0.0/"], USAGE, "10.1.0.0/"),
    (["net", "create", "n", "--subnet", "10.1.0.0/33"], USAGE, "10.1.0.0/33"),
    (["net", "create", "n", "--subnet", "10.1.0.0/-1"], USAGE, ""),
    (["net", "create", "n", "--subnet", "10.1.0.0/024"], USAGE, ""),
    (["net", "create", "n", "--subnet", "10.1.0/24"], USAGE, "10.1.0/24"),
    (["net", "create", "n", "--subnet", "10.1.0.256/24"], USAGE, ""),
    (["net", "create", "n", "--subnet", "010.1.0.0/24"], USAGE, ""),
    (["net", "create", "n", "--subnet", "10.1.0.0/24 "], USAGE, ""),
    (["net", "create", "n", "--subnet", "fd00::/64"], USAGE, "fd00::/64"),
    (["net", "create", "n", "--subnet", "banana"], USAGE, "banana"),
    (["net", "create", "n", "--subnet", "10.1.0.0/7"], REFUSED, "10.1.0.0/7"),
    (["net", "create", "n", "--subnet", "10.1.0.0/31"], REFUSED, "10.1.0.0/31"),
    (["net", "create", "n", "--subnet", "10.9.0.0/25"], REFUSED, "blue"),
    (["net", "create", "n", "--subnet", "127.1.0.0/16"], REFUSED, "127.1.0.0/16"),
    (["net", "create", "n", "--gateway"], USAGE, "gateway"),
    (["net", "create", "n", "--gateway", "10.1.0"], USAGE, "10.1.0"),
    (["net", "create", "n", "--gateway", "10.1.0.1/24"], USAGE, ""),
    (["net", "create", "n", "--subnet", "10.1.0.0/24", "--gateway", "10.2.0.1"], REFUSED, "10.2.0.1"),
    (["net", "create", "n", "--gateway", "10.1.0.1"], USAGE, ""),
    (["net", "create", "n", "--ip-range", "x"], USAGE, "x"),
    (["net", "create", "n", "--subnet", "10.1.0.0/24", "--ip-range", "10.2.0.0/28"], REFUSED, "10.2.0.0/28"),
    (["net", "create", "n", "--ip-range", "10.1.0.0/28"], USAGE, ""),
    (["net", "create", "n", "--mtu"], USAGE, "mtu"),
    (["net", "create", "n", "--mtu", "large"], USAGE, "large"),
    (["net", "create", "n", "--mtu", "-1"], USAGE, ""),
    (["net", "create", "n", "--mtu", "67"], USAGE, "67"),
    (["net", "create", "n", "--mtu", "65536"], USAGE, "65536"),
    (["net", "create", "n", "--mtu", "99999999999999999999"], USAGE, ""),
    (["net", "create", "n", "--mtu", "1500x"], USAGE, "1500x"),
    (["net", "create", "n", "--bridge", ""], USAGE, ""),
    (["net", "create", "n", "--bridge", "x" * 16], USAGE, ""),
    (["net", "create", "n", "--bridge", "a/b"], USAGE, "a/b"),
    (["net", "create", "n", "--bridge", "a b"], USAGE, "a b"),
    (["net", "create", "n", "--bridge", ".."], USAGE, ".."),
    (["net", "create", "n", "--bridge", "br%d"], USAGE, ""),
    (["net", "create", "n", "--bridge", "eth0"], REFUSED, "eth0"),
    (["net", "create", "n", "--bridge", "lo"], REFUSED, "lo"),
    (["net", "create", "n", "--bridge", "br-blue"], REFUSED, "br-blue"),
    (["net", "create", "n", "--dns", "resolver"], USAGE, "resolver"),
    (["net", "create", "n"] + ["--dns", "192.0.2.1"] * 9, USAGE, ""),
    (["net", "create", "n", "--label", "plain"], USAGE, "plain"),
    (["net", "create", "n", "--label", "=v"], USAGE, ""),
    (["net", "create", "n", "--label", "k" * 200 + "=v"], None, ""),
    (["net", "create", "n", "--label", "k=" + "v" * 5000], None, ""),
    (["net", "create", "n"] + [x for i in range(65) for x in ("--label", f"k{i}=v")], None, ""),
    (["net", "create", "n", "--internal=yes"], USAGE, "internal"),
    (["net", "create", "n", "--colour", "blue"], USAGE, "colour"),
    (["net", "create", "n", "-z"], USAGE, "z"),
]

NET_OTHERS = [
    (["net"], USAGE, ""),
    (["net", "paint"], USAGE, "paint"),
    (["net", "ls", "extra"], USAGE, "extra"),
    (["net", "ls", "--quiet=1"], USAGE, ""),
    (["net", "inspect"], USAGE, "NAME"),
    (["net", "inspect", "nowhere"], REFUSED, "nowhere"),
    (["net", "inspect", "NOWHERE"], None, "NOWHERE"),
    (["net", "rm"], USAGE, "NAME"),
    (["net", "rm", "nowhere"], REFUSED, "nowhere"),
    (["net", "rm", "default"], REFUSED, "default"),
    (["net", "prune", "blue"], USAGE, "blue"),
    (["net", "allow"], USAGE, "FROM"),
    (["net", "allow", "blue"], USAGE, "TO"),
    (["net", "allow", "Blue", "default"], USAGE, "Blue"),
    (["net", "allow", "blue", "blue"], USAGE, "same network"),
    (["net", "allow", "blue", "nowhere"], REFUSED, "nowhere"),
    (["net", "allow", "nowhere", "blue"], REFUSED, "nowhere"),
    *[(["net", "allow", "blue", "default", port], USAGE, port[:20]) for port in ("x", "0", "65536", "90-80", "8080:80", "80/icmp", "1.2.3.4:80", "x" * 100)],
    (["net", "allow", "blue", "default", "80", ""], USAGE, ""),
    (["net", "allow", "blue", "default"] + [str(i) for i in range(1, 258)], USAGE, "256"),
    (["net", "deny", "blue", "default"], REFUSED, "blue"),
    (["net", "deny", "blue"], USAGE, "TO"),
    (["net", "deny", "blue", "default", "x"], USAGE, "x"),
    (["net", "allow", "blue", "default", "--cut"], USAGE, "cut"),
]

ATTACH = [
    (["attach"], USAGE, ""),
    (["attach", "g"], USAGE, "network"),
    (["attach", "g", "--network", "default"], REFUSED, "g"),
    (["attach", "G", "--network", "default", "--pid", "FREE"], USAGE, "G"),
    (["attach", "g", "--network", "nowhere", "--pid", "FREE"], REFUSED, "nowhere"),
    (["attach", "g", "--network", "", "--pid", "FREE"], USAGE, ""),
    (["attach", "g", "--network", "Default", "--pid", "FREE"], USAGE, "Default"),
    (["attach", "g", "--network", "default,ip", "--pid", "FREE"], USAGE, "ip"),
    (["attach", "g", "--network", "default,ip=", "--pid", "FREE"], USAGE, ""),
    (["attach", "g", "--network", "default,ip=10.88", "--pid", "FREE"], USAGE, "10.88"),
    (["attach", "g", "--network", "default,ip=::1", "--pid", "FREE"], USAGE, "::1"),
    (["attach", "g", "--network", "default,ip=10.99.0.1", "--pid", "FREE"], REFUSED, "10.99.0.1"),
    (["attach", "g", "--network", "default,ip=10.88.0.1", "--pid", "FREE"], REFUSED, "10.88.0.1"),
    (["attach", "g", "--network", "default,ip=10.88.0.2", "--pid", "FREE"], REFUSED, "web"),
    (["attach", "g", "--network", "default,mac=x", "--pid", "FREE"], USAGE, "x"),
    (["attach", "g", "--network", "default,mac=00:00:00:00:00:00", "--pid", "FREE"], USAGE, "00:00:00:00:00:00"),
    (["attach", "g", "--network", "default,mac=01:00:00:00:00:01", "--pid", "FREE"], None, "01:00:00:00:00:01"),
    (["attach", "g", "--network", "default,mac=02:00:00:00:00:05", "--pid", "FREE"], REFUSED, "web"),
    (["attach", "g", "--network", "default,alias=", "--pid", "FREE"], USAGE, ""),
    (["attach", "g", "--network", "default,alias=a b", "--pid", "FREE"], USAGE, "a b"),
    (["attach", "g", "--network", "default,alias=" + "x" * 64, "--pid", "FREE"], USAGE, ""),
    (["attach", "g", "--network", "default,colour=red", "--pid", "FREE"], USAGE, "colour"),
    (["attach", "g", "--network", "default", "--network", "default", "--pid", "FREE"], USAGE, "default"),
    (["attach", "g"] + ["--network", "default"] * 17 + ["--pid", "FREE"], USAGE, ""),
    (["attach", "g", "--network", "default", "--pid", "self"], USAGE, "self"),
    (["attach", "g", "--network", "default", "--pid", "0"], USAGE, "0"),
    (["attach", "g", "--network", "default", "--pid", "-5"], USAGE, ""),
    (["attach", "g", "--network", "default", "--pid", "4999999"], None, "4999999"),
    (["attach", "g", "--network", "default", "--pid", "99999999999"], USAGE, ""),
    (["attach", "g", "--network", "default", "--netns", "/no/such/place"], None, "/no/such/place"),
    (["attach", "g", "--network", "default", "--netns", "/etc/passwd"], None, "/etc/passwd"),
    (["attach", "g", "--network", "default", "--netns", ""], USAGE, ""),
    (["attach", "g", "--network", "default", "--tap", "--dns-inject"], USAGE, "dns-inject"),
    (["attach", "g", "--network", "default", "--netns", "/proc/FREE/ns/net", "--dns-inject"], REFUSED, ""),
    (["attach", "web", "--network", "blue", "--dns-inject"], USAGE, "dns-inject"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "--dns-inject=yes"], USAGE, "dns-inject"),
    (["attach", "web", "--network", "default", "--pid", "FREE"], REFUSED, "web"),
    (["attach", "web", "--network", "default"], REFUSED, "default"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "--mode", "half"], USAGE, "half"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "--mode", "FULL"], USAGE, "FULL"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "--mode", "outbound", "-p", "80"], REFUSED, "outbound"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "-p", "8080:80"], REFUSED, "web"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "--tap-owner", "0"], USAGE, "tap"),
    (["attach", "g", "--network", "default", "--pid", "FREE", "--label", "x"], USAGE, "x"),
    (["detach"], USAGE, ""),
    (["detach", "nobody"], REFUSED, "nobody"),
    (["detach", "web", "--network", "blue"], REFUSED, "blue"),
    (["detach", "web", "--network", "nowhere"], REFUSED, "nowhere"),
    (["detach", "web", "out"], USAGE, "out"),
    (["ps", "extra"], USAGE, "extra"),
    (["inspect"], USAGE, ""),
    (["inspect", "nobody"], REFUSED, "nobody"),
]

PORTS_BAD = ["", "x", "0", "65536", "80:0", "0:80", "65536:80", "80:65536", "-1:80", "80-70:80-70", "80-90:80", "80-90:80-91", "80/", "80/sctp",
             "80/TCP", "80:80:80", "1.2.3:80:80", "1.2.3.4.5:80:80", "::1:80:80", "[::1:80:80", "[::1]80:80", "[zz]:80:80", "80 :80",
             "+80:80", "0x50:80", "080:80", "80-:80-", "1.2.3.4:", "65530-65540:65530-65540", "x" * 200]

PORTS = [(["port", "add", "out", "9090:90"], REFUSED, "outbound"),
         (["port"], USAGE, ""), (["port", "add"], USAGE, ""), (["port", "add", "web"], USAGE, "PORT"),
         (["port", "add", "nobody", "80"], REFUSED, "nobody"),
         (["port", "add", "web", "8080:80"], REFUSED, "web"),
         (["port", "add", "web", "9090:90", "9090:91"], REFUSED, "9090"),
         (["port", "add", "web", "192.0.2.1:9090:90"], REFUSED, "192.0.2.1"),
         (["port", "add", "web", "[2001:db8::1]:9090:90"], REFUSED, "2001:db8::1"),
         (["port", "add", "web", "224.0.0.1:9090:90"], None, "224.0.0.1"),
         (["port", "rm", "web"], USAGE, "PORT"), (["port", "rm", "web", "9999:99"], REFUSED, "9999"),
         (["port", "rm", "nobody", "8080:80"], REFUSED, "nobody"),
         (["port", "ls", "nobody"], REFUSED, "nobody"), (["port", "ls", "web", "out"], USAGE, "out"),
         *[(["port", "add", "web", port], None, port[:20]) for port in PORTS_BAD if port],
         (["port", "add", "web", ""], None, "")]

OTHERS = [
    (["localhost", "web"], USAGE, ""), (["localhost", "web", "maybe"], USAGE, "maybe"), (["localhost", "nobody", "on"], REFUSED, "nobody"),
    (["limit", "set", "web"], USAGE, "limit"), (["limit", "set"], USAGE, "GUEST"), (["limit", "show", "nobody"], REFUSED, "nobody"),
    (["limit", "set", "nobody", "--rate-up", "1mbit"], REFUSED, "nobody"),
    *[(["limit", "set", "web", f"--rate-{way}", rate], USAGE, rate) for way in ("up", "down") for rate in ("10", "10mb", "1kbit", "2tbit", "-1mbit", "fast")],
    *[(["limit", "set", "web", option, count], USAGE, count) for option in ("--max-conns", "--conn-rate") for count in ("0", "-1", "1000001", "many", "1.5")],
    (["policy"], USAGE, ""), (["policy", "show"], USAGE, ""), (["policy", "show", "nobody"], REFUSED, "nobody"),
    (["policy", "test", "web"], USAGE, "DEST"), (["policy", "test", "nobody", "192.0.2.1:80"], REFUSED, "nobody"),
    (["policy", "test", "web", "192.0.2.1"], USAGE, "has no port"), (["policy", "test", "web", "any:80"], USAGE, "any:80"),
    (["policy", "test", "web", "192.0.2.0/24:80"], USAGE, "more than one"),
    (["policy", "test", "web", "192.0.2.1:80-81"], USAGE, "more than one"),
    (["policy", "test", "web", "*.example.org:80"], USAGE, "more than one"),
    (["policy", "test", "web", "192.0.2.1:0"], USAGE, "1 to 65535"), (["policy", "test", "web", ""], USAGE, "empty"),
    (["policy", "test", "web", LONG], USAGE, ""), (["policy", "test", "web", "peer:80"], USAGE, "address"),
    (["policy", "learn"], USAGE, "GUEST"), (["policy", "learn", "nobody"], REFUSED, "nobody"),
    *[(["policy", "learn", "web", "--for", time], USAGE, time) for time in ("", "0", "x", "-1s", "1w", "8d", "99999999999999999999", "1 s")],
    (["policy", "set", "web", "--allow", "web.moat.internal"], USAGE, "address"),
    (["policy", "set", "nobody", "--mode", "full"], REFUSED, "nobody"), (["policy", "set", "web", "--mode", "x"], USAGE, "x"),
    (["dns"], USAGE, ""), (["dns", "add", "printer"], USAGE, ""), (["dns", "add", "printer", "x"], USAGE, "x"),
    (["dns", "add", "a b", "192.0.2.1"], USAGE, "a b"), (["dns", "add", ".", "192.0.2.1"], USAGE, "."),
    (["dns", "add", "a..b", "192.0.2.1"], USAGE, "a..b"), (["dns", "add", "x" * 64, "192.0.2.1"], USAGE, ""),
    (["dns", "add", ".".join(["x" * 60] * 5), "192.0.2.1"], USAGE, ""),
    (["dns", "add", "printer", "192.0.2.1", "--network", "nowhere"], REFUSED, "nowhere"),
    (["dns", "add", "printer", "PTR", "web"], USAGE, "PTR"), (["dns", "add", "printer", "MX", "10 web"], USAGE, "MX"),
    (["dns", "add", "printer", "A"], USAGE, "VALUE"), (["dns", "add", "printer", "A", "fd00::1"], USAGE, "fd00::1"),
    (["dns", "add", "printer", "AAAA", "192.0.2.1"], USAGE, "192.0.2.1"), (["dns", "add", "printer", "192.0.2.1", "x"], USAGE, "x"),
    (["dns", "add", "printer", "CNAME", "a..b"], USAGE, "a..b"), (["dns", "add", "printer", "CNAME", "*.b"], USAGE, "*.b"),
    (["dns", "add", "printer", "CNAME", "printer"], USAGE, "printer"), (["dns", "add", "printer", "CNAME", "a", "b"], REFUSED, "CNAME"),
    (["dns", "add", "printer", "SRV", "1", "2", "web"], USAGE, "PORT"), (["dns", "add", "printer", "SRV", "1 2 70000 web"], USAGE, "70000"),
    (["dns", "add", "printer", "TXT", ""], USAGE, "empty"), (["dns", "add", "printer", "TXT", "x" * 1025], USAGE, "1024"),
    (["dns", "add", "printer", "TXT", "a\tb"], USAGE, "control"), (["dns", "add", "printer", "TXT"] + ["x"] * 65, USAGE, "64"),
    (["dns", "add", "a.*.b", "192.0.2.1"], USAGE, "a.*.b"), (["dns", "add", "**", "192.0.2.1"], USAGE, "**"),
    (["dns", "add", "host", "192.0.2.1"], USAGE, "gateway"), (["dns", "add", "localhost", "192.0.2.1"], USAGE, "localhost"),
    (["dns", "add", "moat.internal", "192.0.2.1"], USAGE, "moat.internal"), (["dns", "rm", "printer", "x"], USAGE, "x"),
    (["dns", "flush", "a..b"], USAGE, "a..b"), (["dns", "flush", "a", "b"], USAGE, "b"),
    (["dns", "rm", "nothing"], REFUSED, "nothing"), (["dns", "rm"], USAGE, ""), (["dns", "ls", "--network", "nowhere"], REFUSED, "nowhere"),
    (["status", "x"], USAGE, "x"), (["doctor", "x"], USAGE, "x"), (["events", "x"], USAGE, "x"),
    (["teardown"], None, "--yes"), (["teardown", "now", "--yes"], USAGE, "now"),
    (["compose"], USAGE, "compose"), (["compose", "sideways"], USAGE, "sideways"), (["compose", "up", "web"], USAGE, "web"),
    (["compose", "up", "-f", ""], USAGE, "file"), (["compose", "up", "-f", "/no/such.yaml"], REFUSED, "/no/such.yaml"),
    (["compose", "up", "-p", "!"], USAGE, "!"), (["compose", "up", "-p", "x" * 64], USAGE, "project-name"),
    (["compose", "down", "-t", "-1"], USAGE, "timeout"), (["compose", "down", "-t", "soon"], USAGE, "soon"),
    (["compose", "up", "-t", "86401"], USAGE, "86401"), (["compose", "ps", "--detach"], USAGE, "detach"),
    (["compose", "-z", "ps"], USAGE, "-z"), (["compose", "up"], REFUSED, "compose.yaml"),
    (["frobnicate"], USAGE, "frobnicate"), (["--frobnicate"], USAGE, "frobnicate"), (["--socket"], USAGE, "socket"),
    (["ps", "--socket"], USAGE, "socket"),
]

RUN = [
    (["run"], USAGE, "COMMAND"), (["run", "--"], USAGE, "COMMAND"),
    (["run", "-n", "Bad", "--", "true"], None, "Bad"),
    (["run", "-n", "web", "--", "true"], 125, "web"),
    (["run", "--network", "nowhere", "--", "true"], 125, "nowhere"),
    (["run", "--network", "default,x=1", "--", "true"], None, "x"),
    (["run", "--mode", "odd", "--", "true"], None, "odd"),
    (["run", "-p", "eighty", "--", "true"], None, "eighty"),
    (["run", "-p", "8080:80", "--", "true"], 125, "web"),
    (["run", "--mode", "outbound", "-p", "9090:90", "--", "true"], 125, "outbound"),
    (["run", "--dns", "x", "--", "true"], None, "x"),
    (["run", "--dns-search", "a b", "--", "true"], None, "a b"),
    (["run", "--dns-search", "x" * 300, "--", "true"], None, ""),
    (["run", "--add-host", "nohost", "--", "true"], None, "nohost"),
    (["run", "--add-host", "a:b", "--", "true"], None, "a:b"),
    (["run", "--add-host", "a b:192.0.2.1", "--", "true"], None, "a b"),
    (["run", "--add-host", ":192.0.2.1", "--", "true"], None, ""),
    (["run", "--add-host", "a\nb:192.0.2.1", "--", "true"], None, ""),
    (["run", "--hostname", "", "--", "true"], None, ""),
    (["run", "--hostname", "x" * 65, "--", "true"], None, ""),
    (["run", "--hostname", "a b", "--", "true"], None, "a b"),
    (["run", "--rootfs", "", "--", "true"], None, ""),
    (["run", "--rootfs", "/no/such/dir", "--", "true"], None, "/no/such/dir"),
    (["run", "--rootfs", "/etc/passwd", "--", "true"], None, "/etc/passwd"),
    (["run", "-u", "nobody-of-this-name", "--", "true"], None, "nobody-of-this-name"),
    (["run", "-u", "-1", "--", "true"], None, ""),
    (["run", "-u", "4294967295", "--", "true"], None, "4294967295"),
    (["run", "-u", "1:x9y", "--", "true"], None, "x9y"),
    (["run", "-u", "", "--", "true"], None, ""),
    (["run", "-w", "relative/../dir/nowhere", "--", "true"], None, "nowhere"),
    (["run", "-w", "/no/such/dir", "--", "true"], 125, "/no/such/dir"),
    (["run", "-e", "=x", "--", "true"], None, ""),
    (["run", "--label", "x", "--", "true"], None, "x"),
    (["exec"], USAGE, ""), (["exec", "web"], USAGE, "COMMAND"), (["exec", "nobody", "--", "true"], 125, "nobody"),
    (["exec", "web", "-u", "x y", "--", "true"], None, "x y"),
]


@pytest.mark.parametrize("rows", [NET_CREATE, NET_OTHERS, ATTACH, PORTS, OTHERS, RUN],
                         ids=["net-create", "net", "attach", "port", "others", "run"])
def test_commands(ready, rows):
    before, kernel = intent(ready), ready.kernel()
    wrong = []
    for arguments, code, word in rows:
        args = [str(ready.free.pid) if a == "FREE" else a for a in arguments]
        outcome = ready.moat(*args, check=False)
        expected = {USAGE, REFUSED, 125} if code is None else {code}
        if outcome.code not in expected:
            wrong.append(f"exit {outcome.code} instead of {sorted(expected)}: {outcome}")
        elif not outcome.err.startswith("moat: "):
            wrong.append(f"no line \"moat: …\": {outcome}")
        elif outcome.code != USAGE and len(outcome.err.strip().splitlines()) != 1:
            wrong.append(f"more than one line: {outcome}")
        elif word and word not in outcome.err:
            wrong.append(f"does not say {word!r}: {outcome}")
        elif outcome.out:
            wrong.append(f"prints something on stdout: {outcome}")
        if intent(ready) != before:
            wrong.append(f"something changed: {outcome}")
            before = intent(ready)
    assert not wrong, f"{len(wrong)} of {len(rows)}:\n" + "\n".join(wrong)
    changes = kernel.differences(ready.kernel())
    assert not changes, "refused commands changed the host:\n" + "\n".join(changes)
    assert set(ready.free.links()) == {"lo"}


# RPC members

STRANGE = [None, True, 0, -1, 1.5, 2 ** 70, "", " ", "x y", "\u0000", "\n", "ü", LONG, [], [[]], {}, {"a": 1}]


def members(method, base, table):
    return [(method, base, member, value, answer) for member, rows in table.items() for value, answer in rows]


def field(*values):
    return [(value, "field") for value in values]


NAME_ROWS = field(*STRANGE, "Blue", "-a", "a-", "a_b", "a.b", "x" * 64, "a/b")
BOOL_ROWS = field(None, 0, 1, "true", "", [], {})
IP_ROWS = field(None, 1, "", "x", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1/24", " 10.0.0.1", [], {})
IP4_ROWS = IP_ROWS + field("::1")
CIDR_ROWS = field(None, 1, "", "x", "10.1.0.0", "10.1.0.0/33", "10.1.0.0/-1", "10.1.0.0/08", "10.1.0/24", "fd00::/64", [], {})
LABEL_ROWS = field(None, 1, "a=b", [], ["a=b"], {"a": 1}, {"a": None}, {"": "x"}, {"k" * 200: "v"}, {"k": "v" * 5000},
                   {f"k{i}": "" for i in range(65)})
MODE_ROWS = field(None, 1, "", "half", "FULL", [], {})
STRING_LIST = field(None, 1, "x", {}, [1], [None], [[]])

ROWS = [
    *members("network.create", {"name": "n"}, {
        "name": NAME_ROWS + [("blue", "exists")],
        "subnet": CIDR_ROWS + [("10.1.0.0/7", "subnet_invalid"), ("10.1.0.0/31", "subnet_invalid"), ("10.9.0.0/25", "subnet_overlap"),
                               ("192.168.77.0/24", "subnet_overlap")],
        "gateway": IP4_ROWS,
        "ip_range": CIDR_ROWS,
        "ipv4": BOOL_ROWS, "ipv6": BOOL_ROWS, "internal": BOOL_ROWS, "isolated": BOOL_ROWS, "host_access": BOOL_ROWS, "dns": BOOL_ROWS, "ignore": BOOL_ROWS,
        "mtu": field(None, "1500", 0, 67, 65536, -1, 1500.5, 2 ** 40, [], {}, True),
        "bridge": field(None, 1, "", "a/b", "a b", "x" * 16, ".", "..", "a:b", [], {}) + [("eth0", "in_use"), ("br-blue", "in_use")],
        "dns_servers": STRING_LIST + field(["x"], ["192.0.2.1"] * 9),
        "labels": LABEL_ROWS,
        "colour": field("blue"),
    }),
    *members("network.get", {}, {"name": NAME_ROWS + [("nowhere", "not_found")]}),
    *members("network.remove", {"name": "blue"}, {"name": NAME_ROWS + [("nowhere", "not_found")], "force": BOOL_ROWS}),
    *members("network.list", {}, {"x": field(1)}),
    *members("network.prune", {}, {"x": field(1)}),
    *members("guest.attach", {"name": "g", "kind": "netns", "pid": "FREE", "networks": [{"name": "default"}]}, {
        "name": NAME_ROWS + [("web", "exists")],
        "kind": field(None, 1, "", "chair", "NETNS", [], {}),
        "pid": field(None, 0, -1, "1", 1.5, 2 ** 40, [], {}) + [(4194000, "not_found")],
        "netns": field(None, 1, [], {}, "/proc/self/ns/net"),
        "netns_fd": BOOL_ROWS + [(True, "field netns")],
        "mode": MODE_ROWS,
        "networks": field(None, 1, "default", {}, [1], ["default"], [{}], [{"name": 1}], [{"name": "default", "x": 1}],
                          [{"name": f"n{i}"} for i in range(17)]) +
        [([{"name": "nowhere"}], "not_found"), ([{"name": "default"}, {"name": "default"}], "field"),
         ([{"name": "default", "ip": "10.88.0.2"}], "address_in_use"), ([{"name": "default", "ip": "10.99.0.2"}], "address_outside"),
         ([{"name": "default", "mac": "02:00:00:00:00:05"}], "address_in_use")] +
        [([{"name": "default", "ip": value}], answer) for value, answer in IP4_ROWS] +
        [([{"name": "default", "mac": value}], "field") for value in (None, 1, "", "x", "01:00:00:00:00:01", "02:00:00:00:00", [], {})] +
        [([{"name": "default", "aliases": value}], "field") for value in (None, 1, "a", {}, [1], ["a b"], [""], ["x" * 64], ["a"] * 17)],
        "ports": STRING_LIST + field(*[[port] for port in PORTS_BAD], ["80"] * 257) + [(["8080:80"], "port_in_use"), (["192.0.2.1:90:90"], "address_outside")],
        "policy": field(None, 1, "", [], {"x": 1}, {"allow": "any"}, {"allow": [1]}, {"deny": None}, {"log_denied": 1}, {"drop": 1}, {"cut": True}),
        "limits": field(None, 1, "", [], {"x": 1}, {"rate_up": 1}, {"rate_down": "1mbit"}, {"max_conns": -1}, {"conn_rate": 1000001}),
        "hosts": STRING_LIST + field(["nohost"], ["a:b"], ["a b:192.0.2.1"], [":192.0.2.1"], ["a\nb:192.0.2.1"], ["a:192.0.2.1"] * 65),
        "dns": STRING_LIST + field(["x"], ["192.0.2.1"] * 9),
        "dns_search": STRING_LIST + field(["a b"], ["x" * 300], ["a\nb"], ["a.example"] * 9),
        "labels": LABEL_ROWS,
        "ephemeral": BOOL_ROWS, "dns_inject": BOOL_ROWS,
        "tap": field(None, 1, "", [], {"name": "a/b"}, {"name": ""}, {"owner": -1}, {"owner": "root"}, {"group": 1.5}, {"multi_queue": 1}, {"fd": "x"}, {"x": 1}),
        "colour": field("blue"),
    }),
    *[row for method in ("network.allow", "network.deny") for row in members(method, {"from": "blue", "to": "default"}, {
        "from": NAME_ROWS + [("nowhere", "not_found")], "to": NAME_ROWS + [("nowhere", "not_found"), ("blue", "field to")],
        "ports": STRING_LIST + field(*[[port] for port in ("", "x", "0", "80-70", "8080:80", "80/icmp")], ["80"] * 257), "x": field(1)})],
    *members("guest.detach", {"name": "web"}, {"name": NAME_ROWS + [("nobody", "not_found")],
                                              "network": field(None, 1, "", "A") + [("blue", "not_found"), ("nowhere", "not_found")],
                                              "x": field(1)}),
    *members("guest.get", {}, {"name": NAME_ROWS + [("nobody", "not_found")]}),
    *members("guest.list", {}, {"name": field("web")}),
    *members("port.add", {"guest": "web", "ports": ["9090:90"]}, {
        "guest": NAME_ROWS + [("nobody", "not_found"), ("out", "mode_forbids")],
        "ports": STRING_LIST + field([], *[[port] for port in PORTS_BAD], ["80"] * 257) + [(["8080:81"], "port_in_use"), (["9090:90", "9090:91"], "port_in_use")]}),
    *members("port.remove", {"guest": "web"}, {"guest": NAME_ROWS, "ports": STRING_LIST + field([], ["x"]) + [(["9090:90"], "not_found")]}),
    *members("port.list", {}, {"guest": field(None, 1, "", "A") + [("nobody", "not_found")]}),
    *members("policy.get", {}, {"guest": NAME_ROWS + [("nobody", "not_found")]}),
    *members("policy.test", {"guest": "web", "destination": "192.0.2.1:80"},
             {"guest": NAME_ROWS + [("nobody", "not_found")],
              "destination": field(None, 1, "", LONG, "x" * 400, "any:80", "192.0.2.1", "192.0.2.1:x", "10.0.0.0/8:80")}),
    *members("policy.learn", {"guest": "web", "enabled": True}, {"guest": NAME_ROWS + [("nobody", "not_found")], "enabled": BOOL_ROWS}),
    *members("policy.learned", {}, {"guest": NAME_ROWS + [("nobody", "not_found"), ("web", "not_found")]}),
    *members("policy.set", {"guest": "web"}, {"guest": NAME_ROWS + [("nobody", "not_found")], "mode": MODE_ROWS, "allow": STRING_LIST, "deny": STRING_LIST,
                                             "log_denied": BOOL_ROWS, "drop": BOOL_ROWS, "cut": BOOL_ROWS}),
    *members("limit.get", {}, {"guest": NAME_ROWS + [("nobody", "not_found")]}),
    *members("limit.set", {"guest": "web"}, {
        "guest": NAME_ROWS + [("nobody", "not_found")],
        **{rate: field(None, "10mbit", -1, 1, 63999, 1.5, 10 ** 12 + 1, True, [], {}) for rate in ("rate_up", "rate_down")},
        **{count: field(None, "1", -1, 1.5, 1000001, True, [], {}) for count in ("max_conns", "conn_rate")}, "x": field(1)}),
    *members("localhost.set", {"guest": "web", "enabled": True}, {"guest": NAME_ROWS + [("nobody", "not_found")], "enabled": BOOL_ROWS}),
    *members("dns.add", {"name": "printer", "ip": "192.0.2.1"}, {
        "name": field(*STRANGE, "a..b", ".", "a.", "x" * 64), "ip": IP_ROWS, "network": field(None, 1, "", "A") + [("nowhere", "not_found")],
        "type": [("A", "field ip")], "values": [(["192.0.2.2"], "field ip")]}),
    *members("dns.add", {"name": "printer", "type": "CNAME", "values": ["web"]}, {
        "name": field("moat.internal", "host", "localhost", "*.*", "a.*", "**"), "type": field(None, 1, "", "PTR", "MX", []),
        "values": STRING_LIST + field([], [""], ["a b"], ["*.b"], ["printer"], ["a."  * 130], ["x"] * 65) + [(["web", "db"], "exists")]}),
    *members("dns.add", {"name": "printer"}, {"values": field([], ["web"], ["192.0.2.1", "x"]) + [(["192.0.2.1"] * 2, "exists")]}),
    *members("dns.add", {"name": "printer", "type": "TXT"}, {"values": field(["a\nb"], ["x" * 1025])}),
    *members("dns.add", {"name": "printer", "type": "SRV"}, {"values": field(["1 2 web"], ["1 2 3"], ["1 2 65536 web"], ["-1 2 3 web"], ["1 2 3 a..b"])}),
    *members("dns.remove", {"name": "nothing"}, {
        "name": field(*STRANGE) + [("nothing", "not_found"), ("web", "not_found")], "type": field(None, 1, "", "PTR") + [("TXT", "not_found")],
        "values": STRING_LIST + field(["x"]) + [(["192.0.2.1"], "not_found")], "ip": IP_ROWS + [("192.0.2.1", "not_found")]}),
    *members("dns.flush", {}, {"name": field(*STRANGE, "a..b", "x" * 64)}),
    *members("dns.log", {}, {"since": field(None, True, -1, 1.5, 2 ** 70, "1", [], {})}),
    *members("dns.list", {}, {"network": field(None, 1, "", "A") + [("nowhere", "not_found")]}),
    *members("events.subscribe", {}, {"x": field(1)}),
    *members("system.status", {}, {"x": field(1)}),
    *members("system.doctor", {}, {"x": field(1)}),
    *members("system.teardown", {}, {"x": field(1)}),
]

METHODS = sorted({row[0] for row in ROWS})


@pytest.mark.parametrize("method", METHODS)
def test_rpc_members(ready, method):
    before, kernel = intent(ready), ready.kernel()
    wrong = []
    for _, base, member, value, answer in (row for row in ROWS if row[0] == method):
        params = {**base, member: value}
        params = {key: ready.free.pid if item == "FREE" else item for key, item in params.items()}
        shown = f"{member}={str(value)[:60]!r}"
        try:
            result = ready.call(method, **params)
            wrong.append(f"{shown} was accepted: {str(result)[:200]}")
            undo(ready, method, params)
        except rpc.RpcError as error:
            if answer.startswith("field"):
                named = answer.partition(" ")[2] or member
                if error.code != -32602 or not (error.field or "").startswith(named):
                    wrong.append(f"{shown}: not -32602 for {named}: {error}")
            elif error.reason != answer or error.code != -32000:
                wrong.append(f"{shown}: not {answer}: {error}")
        if intent(ready) != before:
            wrong.append(f"{shown}: something changed")
            before = intent(ready)
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    changes = kernel.differences(ready.kernel())
    assert not changes, "refused calls changed the host:\n" + "\n".join(changes)
    assert set(ready.free.links()) == {"lo"}


def undo(host, method, params):
    """What should not have been accepted must not spoil the rows that follow."""
    try:
        if method == "network.create":
            host.call("network.remove", name=params["name"])
        elif method == "guest.attach":
            host.call("guest.detach", name=params["name"])
    except rpc.RpcError:
        pass


def test_every_method_has_rows(ready):
    """The table grows with the API: a method that the documentation knows and this table does not is missing here."""
    known = {"network.create", "network.list", "network.get", "network.remove", "network.prune", "network.allow", "network.deny", "guest.attach", "guest.detach",
             "guest.list", "guest.get", "port.add", "port.remove", "port.list", "policy.get", "policy.set", "policy.test", "policy.learn", "policy.learned", "limit.get", "limit.set", "localhost.set",
             "dns.list", "dns.add", "dns.remove", "dns.flush", "dns.log", "events.subscribe", "system.status", "system.doctor", "system.teardown"}
    assert set(METHODS) == known
    for method in known:
        assert ready.error(method, no_such_member=1).field == "no_such_member"


# The daemon's own arguments and configuration

@pytest.mark.parametrize("arguments, word", [
    (["--frobnicate"], "frobnicate"), (["extra"], "extra"), (["--state-dir"], "state-dir"), (["--config", "/no/such/file"], "/no/such/file"),
    (["--state-dir", "/etc/passwd"], "/etc/passwd"), (["--run-dir", "/etc/passwd"], "/etc/passwd"), (["--state-dir", ""], ""),
    (["--run-dir", "/tmp/" + "x" * 120], "")])
def test_daemon_arguments(machine, internet, arguments, word):
    others = [] if "--state-dir" in arguments else ["--state-dir", machine.state_dir]
    others += [] if "--run-dir" in arguments else ["--run-dir", machine.run_dir]
    process = machine.second_daemon(*others, *arguments)
    process.expected_end = True
    assert process.wait_end() not in (0, None), process.log()
    assert word in process.log(), process.log()


@pytest.mark.parametrize("text, word", [
    ("[nosuch]\na = b\n", "nosuch"), ("[dns]\ncolour = blue\n", "colour"), ("[dns]\ndomain = a b\n", "domain"),
    ("[network]\nsubnet_size = 99\n", "subnet_size"), ("[network]\ndefault_subnet = x\n", "default_subnet"), ("nonsense\n", "1"),
    ("[dns]\nforward = corp.example\n", "corp.example"), ("[dns]\nforward = moat.internal=192.0.2.1\n", "moat.internal"),
    ("[dns]\nin_flight = 0\n", "in_flight"), ("[dns]\nconnections = 1025\n", "connections"), ("[dns]\nrebind_guard = 1\n", "rebind_guard"),
    ("[dns]\nttl = -1\n", "ttl"), ("[daemon\n", "1"), ("[dns]\ndomain = " + "x" * 300 + "\n", "domain")])
def test_configuration(machine, internet, text, word):
    machine.configure(text)
    process = machine.second_daemon()
    process.expected_end = True
    assert process.wait_end() not in (0, None), process.log()
    assert word in process.log() and "moat.conf" in process.log(), process.log()


def test_daemon_help_and_version(machine, internet):
    out = machine.run(daemon.binary("moatd"), "--help")
    for option in ("--config", "--state-dir", "--run-dir"):
        assert option in out
    assert machine.run(daemon.binary("moatd"), "--version").strip()
