# SPDX-License-Identifier: GPL-2.0-or-later
"""The name service beside an echo, which does nothing but copy, and beside unbound, Knot DNS and dnsmasq.

All of them run in one namespace with moatd, on a processor that the generator does not use, and are asked by the host
over loopback, in turns: a guest's link and rules would cost each of them something else. What a query costs is counted
by callgrind, without moatd: there it is the name worker's own code (dns_serve.c).
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess

import packages
from figures import centile, median, turns
from spaces import Moat, Space, note, wait_for

TOOLS = ("bench_dns_echo", "bench_dns_load", "bench_dns_serve")
PACKAGES = ("unbound", "libevent-2.1-7", "libhiredis0.14", "libnghttp2-14", "libprotobuf-c1", "libpython3.11", "libexpat1",
            "knot", "libknot13", "libzscanner4", "libdnssec9", "liblmdb0", "libfstrm0", "liburcu8", "libedit2",
            "libmaxminddb0", "libxdp1", "libbpf1",
            "dnsmasq-base", "libnfnetlink0", "libnetfilter-conntrack3", "libdbus-1-3")
SERVER_CPU, LOAD_CPU = 0, 1
FEW, MANY = 10, 10000
ELSEWHERE = 1000  # names of the zone that is forwarded
UPSTREAM = "192.0.2.53"
DOMAIN, OUTSIDE = ".moat.internal", ".bench.example"
COUNTED = 20000  # queries under callgrind
BATCH = 500  # of dns.add, before answers are read


def address_of(i):
    return f"192.168.{i // 250}.{i % 250 + 1}"


# --- the servers ---


class Server:
    """A program that answers on ADDRESS:PORT. Subclasses make its configuration and its command; forwards: where to."""

    def __init__(self, unpacked, directory, address, port, count, forwards=None):
        self.unpacked, self.address, self.port, self.count, self.forwards = unpacked, address, port, count, forwards
        self.directory = os.path.join(directory, f"{type(self).__name__}-{address}-{port}")
        os.mkdir(self.directory)
        self.process = None

    def file(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def start(self, space, *prefix):
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = space.popen(*prefix, *self.command(), env=self.unpacked.env, stdin=subprocess.PIPE,
                                       stdout=log, stderr=log)
        return self

    def pin(self):
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            os.sched_setaffinity(int(thread), {SERVER_CPU})

    def close(self):
        self.process.kill()
        self.process.communicate()


class Echo(Server):
    title, echo = "echo", True

    def command(self):
        return [self.unpacked.tools["bench_dns_echo"], self.address, str(self.port)]


class Worker(Server):
    """moat's name worker without moatd."""

    title = "moat"

    def command(self):
        upstream = [self.forwards, "53"] if self.forwards else []
        return [self.unpacked.tools["bench_dns_serve"], self.address, str(self.port), str(self.count), *upstream]


class Unbound(Server):
    title = "unbound"

    def command(self):
        zone = "".join(f'  local-data: "guest-{i}{DOMAIN}. 5 A {address_of(i)}"\n' for i in range(self.count))
        forward = f'forward-zone:\n  name: "."\n  forward-addr: {self.forwards}\n' if self.forwards else ""
        return [self.unpacked.path("usr/sbin/unbound"), "-d", "-c", self.file("unbound.conf", f"""server:
  interface: {self.address}
  port: {self.port}
  num-threads: 1
  do-daemonize: no
  use-syslog: no
  verbosity: 0
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{self.directory}"
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  do-not-query-localhost: no
  local-zone: "{DOMAIN[1:]}." static
{zone}remote-control:
  control-enable: no
{forward}""")]


class Knot(Server):
    title = "knot"

    def zones(self):
        return {DOMAIN[1:]: "".join(f"guest-{i} A {address_of(i)}\n" for i in range(self.count))}

    def command(self):
        listed = ""
        for name, records in self.zones().items():
            self.file(f"{name}.zone", f"$ORIGIN {name}.\n$TTL 3600\n@ SOA host hostmaster 1 3600 600 86400 5\n"
                                      f"@ NS host\nhost A 192.0.2.1\n{records}")
            listed += f"  - domain: {name}\n    storage: {self.directory}\n    file: {name}.zone\n"
        return [self.unpacked.path("usr/sbin/knotd"), "-c", self.file("knot.conf", f"""server:
    rundir: {self.directory}
    listen: {self.address}@{self.port}
    user: root
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {self.directory}
zone:
{listed}""")]


class Outside(Knot):
    """Whom the others forward to."""

    def zones(self):
        return {OUTSIDE[1:]: "".join(f"name-{i} A {address_of(i)}\n" for i in range(ELSEWHERE))}


class Dnsmasq(Server):
    title = "dnsmasq"

    def command(self):
        hosts = self.file("hosts", "".join(f"{address_of(i)} guest-{i}{DOMAIN}\n" for i in range(self.count)))
        forward = [f"--server={self.forwards}"] if self.forwards else []
        return [self.unpacked.path("usr/sbin/dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null",
                f"--port={self.port}", f"--listen-address={self.address}", "--bind-interfaces", "--no-resolv",
                "--no-hosts", f"--addn-hosts={hosts}", f"--local=/{DOMAIN[1:]}/", "--cache-size=10000", "--user=root",
                "--pid-file", "--log-facility=-", *forward]


# --- load ---


class Names:
    """The names PREFIX<0…count-1>SUFFIX."""

    def __init__(self, count, prefix="guest-", suffix=DOMAIN):
        self.arguments = ["-n", str(count), "-p", prefix, "-s", suffix]


LINE = re.compile(r"(\d+)/s median ([\d.]+) us p99 ([\d.]+) us lost (\d+) bad (\d+)")


class Asker:
    """Where queries come from."""

    def __init__(self, space, tools, source=None):
        self.space, self.tools, self.source = space, tools, ["-b", source] if source else []

    def load(self, server, names, in_flight, seconds, *more):
        """Queries a second, median and p99 in µs. Each has to be answered, with a record."""
        judge = "-e" if getattr(server, "echo", False) else "-u"
        text = self.space.run(self.tools["bench_dns_load"], "-c", str(LOAD_CPU), "-f", str(in_flight), "-t",
                              str(seconds), judge, *self.source, *names.arguments, *more, server.address, str(server.port))
        rate, middle, high, lost, bad = map(float, LINE.match(text).groups())
        if lost or bad or not rate:
            raise SystemExit(f"bench: {type(server).__name__}, port {server.port}: {text.strip()}")
        return rate, middle, high

    def answers(self, server, names):
        try:
            return self.load(server, names, 1, 0.01)[0] > 0
        except SystemExit:
            return False


def measure_rates(asker, servers, names, options):
    """Per server: rates with 32 in flight, medians one at a time; in turns."""
    for server in servers:
        wait_for(f"{type(server).__name__}", lambda s=server: asker.answers(s, names), 30)
        server.pin()
        asker.load(server, names, 32, 0.3)  # what is to be cached is
    many = turns(options, *(lambda s=server: asker.load(s, names, 32, options.seconds)[0] for server in servers))
    single = turns(options, *(lambda s=server: asker.load(s, names, 1, options.seconds)[1] for server in servers))
    return many, single


def ratios(figures, floor):
    """Of each round to the floor's in that round: others on the machine slow both."""
    return [a / b for a, b in zip(figures, floor)]


def report_rates(table, title, servers, figures):
    many, single = figures
    for i, server in enumerate(servers):
        table.row(f"{title}: {server.title}", median(many[i]), median(ratios(many[i], many[0])), median(single[i]),
                  median(ratios(single[i], single[0])))


# --- moat ---


class MoatServer:
    """What a moatd's guests ask: its gateway."""

    title = "moat"

    def __init__(self, moat, address):
        self.moat, self.address, self.port = moat, address, 53

    def pid(self):
        return json.loads(self.moat.call("status", "--json"))["dns_pid"]

    def pin(self):
        os.sched_setaffinity(self.pid(), {SERVER_CPU})

    def resident_kib(self):
        with open(f"/proc/{self.pid()}/status", encoding="ascii") as file:
            return {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith(("VmRSS", "Rss"))}

    def add_names(self, first, count):
        """Static records, as many as BATCH in one go."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.moat.socket)
            answers = client.makefile("rb")
            for start in range(first, count, BATCH):
                numbers = range(start, min(start + BATCH, count))
                client.sendall("".join(json.dumps({
                    "jsonrpc": "2.0", "id": i, "method": "dns.add",
                    "params": {"name": f"guest-{i}", "ip": address_of(i)}}) + "\n" for i in numbers).encode())
                for _ in numbers:
                    answer = json.loads(answers.readline())
                    if "error" in answer:
                        raise SystemExit(f"bench: dns.add: {answer}")


def measure_servers(table, unpacked, directory, options):
    """Returns the worker's memory with MANY names, in KiB."""
    moat = Moat(unpacked.tools, directory, "names", f"[dns]\nupstreams = {UPSTREAM}\n")
    moat.space.run("ip", "address", "add", f"{UPSTREAM}/32", "dev", "lo")
    asker = Asker(moat.space, unpacked.tools)
    ours = MoatServer(moat, "10.88.0.1")
    peers = (Unbound, Knot, Dnsmasq) if unpacked.there else ()
    first = 0
    for count in (FEW, MANY):
        note(f"{count} names")
        ours.add_names(first, count)
        first = count
        servers = [kind(unpacked, directory, ours.address, 5300 + i + count, count).start(moat.space)
                   for i, kind in enumerate((Echo, *peers))]
        everyone = [servers[0], ours, *servers[1:]]
        report_rates(table, f"{count:,} local names", everyone,
                     measure_rates(asker, everyone, Names(count), options))
        for server in servers:
            server.close()
    memory = ours.resident_kib()
    if unpacked.there:
        measure_forwarded(table, moat, ours, asker, unpacked, directory, options)
    moat.close()
    return memory


def measure_forwarded(table, moat, ours, asker, unpacked, directory, options):
    note("forwarded names, cached")
    upstream = Outside(unpacked, directory, UPSTREAM, 53, 0).start(moat.space)
    servers = [kind(unpacked, directory, ours.address, 5400 + i, 1, UPSTREAM).start(moat.space)
               for i, kind in enumerate((Echo, Unbound, Dnsmasq))]
    names = Names(ELSEWHERE, "name-", OUTSIDE)
    wait_for("the outside", lambda: Asker(moat.space, unpacked.tools).answers(upstream, names))
    everyone = [servers[0], ours, *servers[1:]]
    report_rates(table, f"{ELSEWHERE:,} cached names", everyone, measure_rates(asker, everyone, names, options))
    for server in (*servers, upstream):
        server.close()


# --- instructions, changes, memory ---


def measure_instructions(server, asker, names):
    """How many a query takes, of all that the process executes: the difference of two runs, so that starting, loading
    and filling a cache is not in it."""
    totals = []
    for queries in (COUNTED, 3 * COUNTED):
        output = os.path.join(server.directory, f"callgrind.{queries}")
        server.start(asker.space, "valgrind", "--tool=callgrind", f"--callgrind-out-file={output}")
        wait_for(type(server).__name__, lambda: asker.answers(server, names), 120)
        asker.load(server, names, 32, 120, "-q", str(queries))
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=120)
        with open(output, encoding="ascii", errors="replace") as file:
            totals.append(int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.M).group(1)))
    return (totals[1] - totals[0]) / (2 * COUNTED)


def report_instructions(table, title, servers, asker, names):
    figures = []
    for server in servers:
        note(f"instructions: {title}, {server.title}")
        figures.append(measure_instructions(server, asker, names))
        table.row(f"{title}: {server.title}", figures[-1], figures[-1] / figures[0])


def measure_cost(table, tools, directory, _options):
    """Section "dns-cost"."""
    if not shutil.which("valgrind"):
        note("no valgrind: instructions are not counted")
        return
    unpacked = unpack(tools, directory)
    space = Space()
    space.run("ip", "address", "add", f"{UPSTREAM}/32", "dev", "lo")
    table.section("instructions of a query (callgrind)", "instructions", "/ moat")
    asker = Asker(space, tools, "127.0.2.2")
    peers = (Unbound, Knot, Dnsmasq) if unpacked.there else ()
    for count in (FEW, MANY):
        servers = [kind(unpacked, directory, "127.0.2.1", 5500 + i + count, count)
                   for i, kind in enumerate((Worker, *peers))]
        report_instructions(table, f"{count:,} local names", servers, asker, Names(count))
    if unpacked.there:
        upstream = Outside(unpacked, directory, UPSTREAM, 53, 0).start(space)
        servers = [kind(unpacked, directory, "127.0.2.1", 5600 + i, 1, UPSTREAM)
                   for i, kind in enumerate((Worker, Unbound, Dnsmasq))]
        report_instructions(table, f"{ELSEWHERE:,} cached names", servers, asker, Names(ELSEWHERE, "name-", OUTSIDE))
        upstream.close()
    space.close()


def measure_changes(table, unpacked, directory):
    """What the worker takes for another address of one name among many."""
    space = Space()
    worker = Worker(unpacked, directory, "127.0.2.1", 5700, MANY)
    process = space.popen(*worker.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdin.write("change 5000\n")
    process.stdin.flush()
    times = [int(word) / 1e3 for word in process.stdout.readline().split()]
    process.communicate()
    space.close()
    table.section(f"one name changes among {MANY:,}, µs of the worker", "median", "p99", "max")
    table.row("moat", median(times), centile(times, 99), max(times))


# --- the sections ---


def unpack(tools, directory):
    unpacked = packages.Packages(directory, "dns")
    unpacked.tools = tools
    if not unpacked.there:
        note("no unbound, knot and dnsmasq to compare with")
    return unpacked


def measure(table, tools, directory, options):
    """Section "dns"."""
    unpacked = unpack(tools, directory)
    table.section("the name service", "32 in flight, queries/s", "/ echo", "one at a time, µs", "/ echo")
    memory = measure_servers(table, unpacked, directory, options)
    measure_changes(table, unpacked, directory)
    table.section(f"memory of the worker with {MANY:,} names, KiB", *memory)
    table.row("moat", *map(str, memory.values()))
