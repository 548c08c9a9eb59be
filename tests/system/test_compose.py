# SPDX-License-Identifier: GPL-2.0-or-later
"""moat compose: a file's networks and services, up, down and ps."""

import json
import os
import signal
import socket
import textwrap

import pytest

import servers
import topology
from netns import alive, sleepers, unique_seconds
from wait import wait_for

LINES = ["sh", "-c", "echo one; echo two >&2"]


class Project:
    """A folder with a compose.yaml, and the commands a user types in it."""

    def __init__(self, host, name="shop"):
        self.host = host
        self.directory = host.temporary(name)
        os.chmod(self.directory, 0o755)

    def write(self, text, name="compose.yaml"):
        text = textwrap.dedent(text)
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)
        return self

    def moat(self, *args, **kwargs):
        return self.host.moat("compose", *args, cwd=self.directory, **kwargs)

    def refused(self, *args, **kwargs):
        return self.host.refused("compose", *args, cwd=self.directory, **kwargs)

    def spawn(self, *args, **kwargs):
        return self.host.spawn("compose", *args, cwd=self.directory, **kwargs)

    def up(self, *args, **kwargs):
        return self.moat("up", "-d", *args, **kwargs)

    def down(self, *args, **kwargs):
        return self.moat("down", *args, **kwargs)

    def guests(self):
        return {g["labels"]["moat.compose.service"]: g for g in self.host.call("guest.list")
                if "moat.compose.service" in g["labels"]}

    def guest(self, service):
        return self.guests()[service]


@pytest.fixture
def project(host):
    project = Project(host)
    yield project


def sleeper(name="web", extra=""):
    return f"""
        services:
          {name}:
            command: sleep infinity
            {extra}
        """


def web_and_client(extra=""):
    return f"""
        services:
          web:
            command: python3 -m http.server 80
            ports: ["8080:80"]
            {extra}
          client:
            command: sleep infinity
            depends_on: [web]
        """


def fetch(net, address, port):
    try:
        return servers.http_get(net, address, port=port)
    except OSError:
        return ""


def pids(project):
    return {service: guest["pid"] for service, guest in project.guests().items()}


# up and down

def test_services_find_each_other_by_name(project, host):
    project.write(web_and_client())
    out = project.up().out
    assert out.splitlines() == ["network default created", "service web started", "service client started"]
    assert host.guest_names() == ["shop-web", "shop-client"] or sorted(host.guest_names()) == ["shop-client", "shop-web"]
    web = project.guest("web")["endpoints"][0]
    assert web["network"] == "shop-default"
    found = host.moat("exec", "shop-client", "--", "getent", "ahostsv4", "web").out.split()[0]
    assert found == web["ip"]
    wait_for(lambda: "Directory listing" in fetch(host, "127.0.0.1", 8080), 10, "the web server through its port")
    project.down()


def test_down_leaves_no_trace(project, host):
    before = host.kernel()
    processes = set(host.pids())
    project.write(web_and_client())
    project.up()
    out = project.down().out
    assert out.splitlines() == ["service client stopped", "service web stopped", "network default removed"]
    assert host.guest_names() == [] and [n["name"] for n in host.call("network.list")] == ["default"]
    wait_for(lambda: not before.differences(host.kernel()), 5, lambda: "\n".join(before.differences(host.kernel())))
    wait_for(lambda: set(host.pids()) <= processes, 5, "the keepers to be gone")
    assert project.down().out == ""


def test_the_services_outlive_up_and_the_daemon(project, host):
    project.write(sleeper())
    project.up()
    pid = project.guest("web")["pid"]
    host.restart()
    assert project.guest("web")["pid"] == pid and alive(pid)
    assert "running" in project.moat("ps").out
    project.down()
    wait_for(lambda: not alive(pid), 5, "the service's end")


def test_up_again_changes_nothing(project, host):
    project.write(web_and_client())
    project.up()
    before, kernel = (host.call("guest.list"), host.call("network.list")), host.kernel()
    assert project.up().out == ""
    assert (host.call("guest.list"), host.call("network.list")) == before
    assert not kernel.differences(host.kernel())
    project.down()


def test_up_again_changes_only_what_differs(project, host):
    project.write(web_and_client())
    project.up()
    before = pids(project)
    project.write(web_and_client("environment: {COLOUR: blue}"))
    assert project.up().out.splitlines() == ["service web stopped", "service web started"]
    after = pids(project)
    assert after["client"] == before["client"] and after["web"] != before["web"]
    assert not alive(before["web"])
    project.down()


def test_a_service_that_ended_is_started_again(project, host):
    project.write(web_and_client())
    project.up()
    before = pids(project)
    os.kill(before["web"], signal.SIGKILL)
    wait_for(lambda: "web" not in project.guests(), 5, "web to be gone")
    assert project.up().out.splitlines() == ["service web started"]
    assert pids(project)["client"] == before["client"]
    project.down()


def test_a_changed_network_takes_its_services_along(project, host):
    text = """
        services:
          a: {{command: sleep infinity, networks: [front]}}
          b: {{command: sleep infinity, networks: [back]}}
        networks:
          front: {{ipam: {{config: [{{subnet: {}}}]}}}}
          back:
        """
    project.write(text.format("10.70.0.0/24"))
    project.up()
    before = pids(project)
    project.write(text.format("10.71.0.0/24"))
    assert project.up().out.splitlines() == ["service a stopped", "network front removed", "network front created",
                                             "service a started"]
    assert pids(project)["b"] == before["b"]
    assert project.guest("a")["endpoints"][0]["ip"].startswith("10.71.0.")
    project.down()


def test_orphans_are_told_and_removed_when_asked(project, host):
    project.write(web_and_client())
    project.up()
    project.write(sleeper("client"))
    out = project.up().out
    assert "service web is not in the file any more" in out and "web" in project.guests()
    project.write(sleeper("client"))
    assert "service web stopped" in project.up("--remove-orphans").out
    assert list(project.guests()) == ["client"]
    project.down()


def test_down_ends_what_the_file_has_no_more(project, host):
    project.write(web_and_client())
    project.up()
    project.write(sleeper("other"))
    project.down()
    assert host.guest_names() == [] and [n["name"] for n in host.call("network.list")] == ["default"]


def test_down_by_the_projects_name_needs_no_file(project, host):
    project.write(web_and_client())
    project.up()
    os.unlink(os.path.join(project.directory, "compose.yaml"))
    project.refused("down", says="compose.yaml")
    table = project.moat("ps", "-p", "shop").out
    assert "shop-web" in table and "shop-client" in table
    project.down("-p", "shop")
    assert host.guest_names() == []


def test_two_projects_of_one_file(project, host):
    project.write(sleeper())
    project.up("-p", "one")
    project.up("--project-name", "two")
    assert sorted(host.guest_names()) == ["one-web", "two-web"]
    project.down("-p", "one")
    assert host.guest_names() == ["two-web"]
    project.down("-p", "two")


def test_a_service_that_does_not_end_is_killed(project, host):
    seconds = unique_seconds(7201)
    project.write(f"""
        services:
          stubborn:
            command: ["sh", "-c", "trap '' TERM; sleep {seconds} & wait; wait; wait"]
        """)
    project.up()
    wait_for(lambda: sleepers(seconds), 5, "the sleep")
    project.down("-t", "0")
    assert host.guest_names() == []
    wait_for(lambda: not sleepers(seconds), 5, "the sleep's end")


def test_ps(project, host):
    project.write(web_and_client())
    assert project.moat("ps").out.count("not running") == 2
    project.up()
    lines = project.moat("ps").out.splitlines()
    assert lines[0].split() == ["SERVICE", "GUEST", "STATE", "ADDRESSES", "PORTS"]
    web = lines[1].split()
    assert web[:3] == ["web", "shop-web", "running"] and web[3] == project.guest("web")["endpoints"][0]["ip"]
    assert web[4] == "8080:80/tcp"
    guests = project.moat("ps", "--json").json
    assert sorted(g["name"] for g in guests) == ["shop-client", "shop-web"]
    assert guests[0] == host.call("guest.get", name=guests[0]["name"])
    assert project.down("--json").json == {}
    assert project.moat("ps", "--json").json == []


# In the foreground

def test_output_is_prefixed_with_the_services_name(project):
    project.write(f"""
        services:
          a: {{command: {json.dumps(LINES)}}}
          longer: {{command: ["printf", "no newline"]}}
        """)
    outcome = project.moat("up")
    lines = outcome.out.splitlines()
    assert "a      | one" in lines and "longer | no newline" in lines
    assert outcome.err.splitlines() == ["a      | two"]
    assert "service a ended with code 0" in lines
    project.down()


def test_long_lines_and_much_output_arrive(project):
    project.write("""
        services:
          a: {command: ["sh", "-c", "head -c 20000 /dev/zero | tr '\\\\0' x; echo; seq 1 20000"]}
        """)
    out = project.moat("up").out
    parts = [line[4:] for line in out.splitlines() if line.startswith("a | ")]
    assert "".join(parts) == "x" * 20000 + "".join(str(i) for i in range(1, 20001))
    project.down()


def test_a_service_that_fails_is_the_commands_failure(project):
    project.write("""
        services:
          bad: {command: ["sh", "-c", "exit 3"]}
          good: {command: "true"}
        """)
    outcome = project.refused("up", says=["bad", "3"])
    assert "service bad ended with code 3" in outcome.out
    project.down()


@pytest.mark.parametrize("name, code", [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_ends_all_services_in_order(project, host, name, code):
    project.write("""
        services:
          db: {command: ["sh", "-c", "trap 'echo db; exit' TERM; echo up; sleep infinity & wait"]}
          web:
            command: ["sh", "-c", "trap 'echo web; exit' TERM; echo up; sleep infinity & wait"]
            depends_on: [db]
        """)
    job = project.spawn("up")
    seen = ""
    while seen.count("| up") < 2:
        seen += job.process.stdout.readline()
    job.send(getattr(signal, f"SIG{name}"))
    outcome = job.finish()
    assert outcome.code == code, str(outcome)
    assert outcome.out.index("web | web") < outcome.out.index("db  | db")
    assert host.guest_names() == []
    project.down()


def test_who_asks_twice_does_not_wait(project, host):
    project.write("""
        services:
          stubborn: {command: ["sh", "-c", "trap 'echo no' TERM; echo up; while :; do sleep infinity & wait; done"]}
        """)
    job = project.spawn("up", "-t", "600")
    while "| up" not in job.process.stdout.readline():
        pass
    job.send(signal.SIGINT)
    while "| no" not in job.process.stdout.readline():
        pass
    job.send(signal.SIGINT)
    assert job.finish().code == 130
    assert host.guest_names() == []
    project.down()


def test_down_ends_an_up_in_the_foreground(project, host):
    project.write(web_and_client())
    job = project.spawn("up")
    wait_for(lambda: len(project.guests()) == 2, 5, "both services")
    project.down()
    job.finish()
    assert host.guest_names() == []


def test_a_killed_up_leaves_nothing_running(project, host):
    seconds = unique_seconds(7202)
    project.write(f"services: {{web: {{command: sleep {seconds}}}}}")
    job = project.spawn("up")
    wait_for(lambda: sleepers(seconds), 5, "the service")
    job.send(signal.SIGKILL)
    job.finish()
    wait_for(lambda: not sleepers(seconds) and host.guest_names() == [], 5, "the service's end")
    project.down()


# A failure leaves things as they were

def test_a_taken_port_undoes_everything(project, host):
    host.attach_guest("other", "-p", "8080:80")
    before, kernel = (host.call("guest.list"), host.call("network.list")), host.kernel()
    project.write("""
        services:
          db: {command: sleep infinity}
          web: {command: sleep infinity, ports: ["8080:80"], depends_on: [db]}
        """)
    for command in (["up", "-d"], ["up"]):
        project.refused(*command, says=["service web", "8080"])
        assert (host.call("guest.list"), host.call("network.list")) == before
        wait_for(lambda: not kernel.differences(host.kernel()), 5, lambda: "\n".join(kernel.differences(host.kernel())))


@pytest.mark.parametrize("command, says", [("no-such-program", "no-such-program"), ("/etc/passwd", "/etc/passwd")])
def test_a_program_that_is_not_there(project, host, command, says):
    project.write(f"services: {{web: {{command: {command}}}}}")
    project.refused("up", "-d", says=["service web", says])
    assert host.guest_names() == [] and len(host.call("network.list")) == 1


def test_a_guest_or_network_of_somebody_else_is_not_touched(project, host):
    host.attach_guest("shop-web")
    project.write(sleeper())
    project.refused("up", "-d", says=["shop-web", "not this project's"])
    host.moat("detach", "shop-web")
    host.moat("net", "create", "shop-default")
    project.refused("up", "-d", says=["shop-default", "not this project's"])
    project.down()
    assert "shop-default" in [n["name"] for n in host.call("network.list")]


def test_a_network_that_others_are_on_stays(project, host):
    project.write(sleeper())
    project.up()
    host.attach_guest("stranger", network="shop-default")
    project.refused("down", says=["shop-default", "stranger"])
    host.moat("detach", "stranger")
    project.down()


def test_the_daemon_has_to_be_there(project, host):
    project.write(sleeper())
    outcome = project.moat("up", check=False, env={"MOAT_SOCKET": "/no/such/socket"})
    assert outcome.code == 3 and "/no/such/socket" in outcome.err


# What a service gets

def shell(project, script, extra="", **kwargs):
    """The output of a script as the one service of a project."""
    project.write(f"services:\n  s:\n    command: [\"sh\", \"-c\", {json.dumps(script.replace('$', '$$'))}]\n"
                  + textwrap.indent(textwrap.dedent(extra), "    "))
    out = project.moat("up", **kwargs).out
    project.down()
    return [line[4:] for line in out.splitlines() if line.startswith("s | ")]


def test_environment(project):
    found = shell(project, "env | sort", "environment: {A: '1', B: two words, PASSED: , EMPTY: ''}",
                  env={"PASSED": "through", "SECRET": "hidden"})
    assert "A=1" in found and "B=two words" in found and "PASSED=through" in found and "EMPTY=" in found
    assert not [line for line in found if line.startswith(("SECRET", "MOAT_"))]
    assert [line for line in found if line.startswith("PATH=")]
    assert "K=v=w" in shell(project, "env", "environment: ['K=v=w', NOT_SET]")


def test_variables_of_the_file(project):
    assert shell(project, "echo $V", "environment: {V: '${COLOUR:-red} $COLOUR $$x'}", env={"COLOUR": "blue"}) == ["blue blue $x"]
    assert shell(project, "echo $V", "environment: {V: '${COLOUR:-red}'}") == ["red"]


def test_working_directory_user_and_hostname(project):
    assert shell(project, "pwd") == [project.directory]
    os.mkdir(os.path.join(project.directory, "sub"))
    assert shell(project, "pwd", "working_dir: sub") == [os.path.join(project.directory, "sub")]
    assert shell(project, "pwd", "working_dir: /usr") == ["/usr"]
    assert shell(project, "id -u; id -g", "user: '12345:23456'") == ["12345", "23456"]
    assert shell(project, "cat /proc/sys/kernel/hostname", "hostname: box") == ["box"]


def test_dns_search_and_hosts(project, host):
    conf = shell(project, "cat /etc/resolv.conf", "dns_search: [lab.example]")
    assert any(line.startswith("search") and "lab.example" in line for line in conf)
    found = shell(project, "cat /etc/hosts", "extra_hosts: ['db:192.0.2.9', 'six=2001:db8::9', 'up:host-gateway']\n")
    rows = [line.split() for line in found]
    assert ["192.0.2.9", "db"] in rows and ["2001:db8::9", "six"] in rows
    gateway, = [row[0] for row in rows if "up" in row[1:]]
    assert gateway.endswith(".1")
    project.write(sleeper(extra="dns: 192.0.2.53"))
    project.up()
    project.down()


def test_networks_aliases_and_addresses(project, host):
    project.write("""
        services:
          web:
            command: sleep infinity
            networks:
              front: {aliases: [www], ipv4_address: 10.71.0.9, ipv6_address: "fd00:71::9", mac_address: 02:00:00:00:71:09}
              back:
          db: {command: sleep infinity, networks: [back]}
          user: {command: sleep infinity, networks: [front]}
        networks:
          front:
            driver: bridge
            enable_ipv6: true
            ipam:
              driver: default
              config:
                - {subnet: 10.71.0.0/24, gateway: 10.71.0.254, ip_range: 10.71.0.128/25}
                - {subnet: "fd00:71::/64", gateway: "fd00:71::fe"}
            labels: {colour: blue}
            driver_opts: {com.docker.network.driver.mtu: 1400, com.docker.network.bridge.name: br-front}
          back: {internal: true, name: behind}
        """)
    project.up()
    front, back = (host.call("network.get", name=name) for name in ("shop-front", "behind"))
    assert (front["subnet"], front["gateway"], front["ip_range"]) == ("10.71.0.0/24", "10.71.0.254", "10.71.0.128/25")
    assert (front["subnet6"], front["gateway6"], front["mtu"], front["bridge"]) == ("fd00:71::/64", "fd00:71::fe", 1400, "br-front")
    assert front["labels"]["colour"] == "blue" and back["internal"] and not front["internal"]
    web = project.guest("web")["endpoints"]
    assert [e["network"] for e in web] == ["shop-front", "behind"]
    assert (web[0]["ip"], web[0]["ip6"], web[0]["mac"]) == ("10.71.0.9", "fd00:71::9", "02:00:00:00:71:09")
    assert web[0]["aliases"] == ["web", "www"]
    assert host.moat("exec", "shop-user", "--", "getent", "ahostsv4", "www").out.split()[0] == "10.71.0.9"
    assert host.moat("exec", "shop-user", "--", "getent", "ahostsv4", "db", check=False).code != 0
    assert host.moat("exec", "shop-db", "--", "getent", "ahostsv4", "web").out.split()[0] == web[1]["ip"]
    project.down()


def test_external_networks(project, host):
    project.write("""
        services: {web: {command: sleep infinity, networks: [lan]}}
        networks: {lan: {external: true, name: blue}}
        """)
    project.refused("up", "-d", says=["blue", "external", "moat net create blue"])
    host.moat("net", "create", "blue")
    project.up()
    assert project.guest("web")["endpoints"][0]["network"] == "blue"
    project.down()
    assert "blue" in [n["name"] for n in host.call("network.list")]


def test_ports(project, host):
    project.write("""
        services:
          web:
            command: sleep infinity
            ports:
              - "8080:80"
              - 127.0.0.1:8081:81/udp
              - "9000-9003:9000-9003"
              - {target: 82, published: "8082", protocol: udp, host_ip: "::1", mode: host, name: x, app_protocol: http}
              - 83
        """)
    project.up()
    ports = [(p["host_ip"], p["host_port"], p["guest_port"], p["count"], p["protocol"]) for p in project.guest("web")["ports"]]
    assert ports[:4] == [(None, 8080, 80, 1, "tcp"), ("127.0.0.1", 8081, 81, 1, "udp"), (None, 9000, 9000, 4, "tcp"),
                         ("::1", 8082, 82, 1, "udp")]
    assert ports[4][2] == 83 and ports[4][1] >= 1024
    project.down()


def test_network_mode_none(project, host):
    found = shell(project, "cat /proc/net/dev", "network_mode: none")
    assert len(found) == 3 and found[2].split(":")[0].strip() == "lo"
    project.write(sleeper(extra="network_mode: none"))
    project.up()
    assert project.guest("web")["mode"] == "loopback" and project.guest("web")["endpoints"] == []
    project.down()


def test_policy(project, host):
    project.write(f"""
        services:
          web:
            command: sleep infinity
            x-moat-policy:
              mode: outbound
              allow: ["{topology.INTERNET}:80/tcp", any/icmp]
              deny: ["@private"]
              log_denied: true
              drop: true
        """)
    project.up()
    policy = host.call("policy.get", guest="shop-web")
    assert policy == {"mode": "outbound", "allow": [f"{topology.INTERNET}:80/tcp", "any/icmp"], "deny": ["@private"],
                      "log_denied": True, "drop": True}
    fetch = ["exec", "shop-web", "--", "curl", "-sS", "-m", "5", "-o", "/dev/null"]
    host.moat(*fetch, f"http://{topology.INTERNET}/")
    assert host.moat(*fetch[:-4], "-m", "1", "-o", "/dev/null", f"http://{topology.LAN}/", check=False).code == 28, "no silence"
    project.down()


def test_rootfs(project, host):
    root = os.path.join(project.directory, "root")
    os.makedirs(os.path.join(root, "bin"))
    host.run("cp", "/bin/busybox", os.path.join(root, "bin/sh")) if os.path.exists("/bin/busybox") else pytest.skip(
        "needs busybox-static to fill a root file system")
    found = shell(project, "pwd; echo made >/file; cat /file; cat /proc/sys/kernel/hostname",
                  "image: ignored\nx-moat-rootfs: root")
    assert found == ["/", "made", "shop-s"]
    assert not os.path.exists(os.path.join(root, "file"))


def test_merge_keys_anchors_and_extensions(project, host):
    project.write("""
        version: "3.8"
        x-common: &common
          command: sleep infinity
          environment: {A: "1"}
        services:
          a: {<<: *common, x-note: anything}
          b:
            <<: *common
            environment: {A: "2"}
        """)
    project.up()
    assert sorted(project.guests()) == ["a", "b"]
    project.down()


def test_project_names(project, host):
    project.write("name: Front_End.1\n" + textwrap.dedent(sleeper("My_Web.x")))
    project.up()
    assert host.guest_names() == ["front-end-1-my-web-x"]
    assert project.guest("My_Web.x")["endpoints"][0]["aliases"] == ["My_Web.x"]
    project.down()
    project.write(sleeper(extra="container_name: the-web"))
    project.up()
    assert host.guest_names() == ["the-web"]
    project.down()


@pytest.mark.parametrize("name", ["compose.yml", "docker-compose.yaml", "docker-compose.yml"])
def test_the_files_that_are_found(project, name):
    project.write(sleeper(), name)
    assert "web" in project.moat("ps").out
    assert "web" in project.host.moat("compose", "ps", "-f", os.path.join(project.directory, name)).out
    assert "web" in project.host.moat("compose", "-f", os.path.join(project.directory, name), "ps").out


# depends_on

def test_services_start_in_the_order_of_their_dependencies(project):
    project.write("""
        services:
          c: {command: sleep infinity, depends_on: {b: {condition: service_started}}}
          b: {command: sleep infinity, depends_on: [a]}
          a: {command: sleep infinity}
        """)
    assert [line.split()[1] for line in project.up().out.splitlines() if "started" in line] == ["a", "b", "c"]
    assert [line.split()[1] for line in project.down().out.splitlines() if "stopped" in line] == ["c", "b", "a"]


def test_a_service_waits_for_the_success_of_another(project, host):
    done = os.path.join(project.directory, "done")
    text = """
        services:
          setup: {{command: ["sh", "-c", "echo x >done; exit {}"]}}
          web:
            command: ["sh", "-c", "cat done; exec sleep infinity"]
            depends_on: {{setup: {{condition: service_completed_successfully}}}}
        """
    project.write(text.format(0))
    project.up()
    assert os.path.exists(done) and list(project.guests()) == ["web"]
    project.down()
    project.write(text.format(4))
    for command in (["up", "-d"], ["up"]):
        project.refused(*command, says=["service web", "setup", "4"])
        assert host.guest_names() == []


# Where the output goes

def test_output_of_detached_services_goes_to_the_journal(project, host):
    host.run("mkdir", "-p", "/run/systemd/journal")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(host.path("/run/systemd/journal/stdout"))
    listener.listen(4)
    listener.settimeout(10)
    try:
        project.write("services: {web: {command: [sh, -c, 'echo hello; exec sleep infinity']}}")
        project.up()
        connection, _ = listener.accept()
        connection.settimeout(10)
        seen = b""
        while b"hello\n" not in seen:
            data = connection.recv(4096)
            assert data, f"the journal's connection ended: {seen}"
            seen += data
        connection.close()
        assert seen.startswith(b"shop-web\n")
        project.down()
    finally:
        listener.close()
        host.run("rm", "-r", "/run/systemd")


def test_an_unprivileged_user_can_do_it(project, host):
    os.chmod(host.run_dir, 0o755)
    os.chmod(host.socket_path, 0o666)
    project.write(web_and_client())
    project.up(user=12345)
    assert sorted(project.guests()) == ["client", "web"]
    pid = project.guest("web")["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == 12345
    project.refused("down", user=12346, says="shop-")
    project.down(user=12345)
    assert host.guest_names() == []


# Bad files: what is said, and that nothing changed

BAD = [
    ("services: [", 2, "not YAML"),
    ("", None, "nothing in it"),
    ("\0", None, "not text"),
    ("just text", 1, "mapping"),
    ("services: {}", 1, "service"),
    ("networks: {}", None, "service"),
    ("services:\n  web: {command: x}\n---\nservices: {}", 4, "second document"),
    ("services:\n  web:\n    command: x\n    restart: always", 4, "restart"),
    ("services:\n  web:\n    command: x\n    volumes: [a]", 4, "volumes"),
    ("services: {web: {command: x}}\nvolumes: {}", 2, "volumes"),
    ("services:\n  web:\n    image: nginx", 3, "x-moat-rootfs"),
    ("services:\n  web:\n    build: .\n    command: x", 3, "x-moat-rootfs"),
    ("services:\n  web:\n    hostname: x", 3, "command"),
    ("services:\n  web:\n    command: []", 3, "command"),
    ("services:\n  web:\n    command: \"a 'b\"", 3, "quote"),
    ("services:\n  web:\n    command: {a: b}", 3, "command"),
    ("services:\n  web:\n    command: x\n    command: y", 4, "twice"),
    ("services:\n  web: {command: x}\n  web: {command: x}", 3, "twice"),
    ("services:\n  'a b': {command: x}", 2, "name"),
    ("services:\n  " + "x" * 64 + ": {command: x}", 2, "name"),
    ("services:\n  a_b: {command: x}\n  a-b: {command: x}", 3, "same name"),
    ("services:\n  web:\n    command: x\n    container_name: Not Valid", None, "Not Valid"),
    ("name: '!'\nservices: {web: {command: x}}", 1, "name"),
    ("services:\n  web:\n    command: x\n    environment: {'': v}", 4, "variable"),
    ("services:\n  web:\n    command: x\n    environment: text", 4, "mapping or a list"),
    ("services:\n  web:\n    command: x\n    environment:\n      A: [1]", 5, "plain value"),
    ("services:\n  web:\n    command: x\n    user: ':5'", 4, "UID"),
    ("services:\n  web:\n    command: x\n    working_dir: ''", 4, "empty"),
    ("services:\n  web:\n    command: x\n    hostname: a b", 4, "hostname"),
    ("services:\n  web:\n    command: x\n    ports: ['80:']", 4, "80:"),
    ("services:\n  web:\n    command: x\n    ports: ['99999']", 4, "99999"),
    ("services:\n  web:\n    command: x\n    ports:\n      - {published: 80}", 5, "target"),
    ("services:\n  web:\n    command: x\n    ports:\n      - {target: 80, protocol: sctp}", 5, "sctp"),
    ("services:\n  web:\n    command: x\n    ports:\n      - {target: 80, host_ip: here}", 5, "IP address"),
    ("services:\n  web:\n    command: x\n    ports:\n      - {target: 80, mode: x}", 5, "ingress"),
    ("services:\n  web:\n    command: x\n    ports:\n      - [80]", 5, "a port is"),
    ("services:\n  web:\n    command: x\n    dns: resolver", 4, "resolver"),
    ("services:\n  web:\n    command: x\n    dns_search: 'a b'", 4, "domain"),
    ("services:\n  web:\n    command: x\n    extra_hosts: ['db']", 4, "IP address"),
    ("services:\n  web:\n    command: x\n    extra_hosts: ['d b:192.0.2.1']", 4, "host's name"),
    ("services:\n  web:\n    command: x\n    networks: [nowhere]", 4, "nowhere"),
    ("services:\n  web:\n    command: x\n    networks: [default, default]", 4, "twice"),
    ("services:\n  web:\n    command: x\n    networks:\n      default: {ipv4_address: fd00::1}", 5, "IPv4"),
    ("services:\n  web:\n    command: x\n    networks:\n      default: {ipv6_address: 10.0.0.1}", 5, "IPv6"),
    ("services:\n  web:\n    command: x\n    networks:\n      default: {mac_address: x}", 5, "MAC"),
    ("services:\n  web:\n    command: x\n    networks:\n      default: {aliases: ['a b']}", 5, "a b"),
    ("services:\n  web:\n    command: x\n    networks:\n      default: {weight: 1}", 5, "weight"),
    ("services:\n  web:\n    command: x\n    network_mode: host", 4, "host"),
    ("services:\n  web:\n    command: x\n    network_mode: none\n    ports: [80]", 3, "ports"),
    ("services:\n  web:\n    command: x\n    network_mode: none\n    networks: [default]", 3, "networks"),
    ("services:\n  web:\n    command: x\n    x-moat-policy: {mode: half}", 4, "half"),
    ("services:\n  web:\n    command: x\n    x-moat-policy: {allow: ['@everything']}", 4, "@everything"),
    ("services:\n  web:\n    command: x\n    x-moat-policy: {deny: ['1.2.3.4:x']}", 4, "1.2.3.4:x"),
    ("services:\n  web:\n    command: x\n    x-moat-policy: {log_denied: perhaps}", 4, "perhaps"),
    ("services:\n  web:\n    command: x\n    x-moat-policy: {drop: perhaps}", 4, "perhaps"),
    ("services:\n  web:\n    command: x\n    x-moat-policy: {colour: blue}", 4, "colour"),
    ("services:\n  web:\n    command: x\n    depends_on: [db]", 4, "db"),
    ("services:\n  web:\n    command: x\n    depends_on: [web]", 3, "depends on itself"),
    ("services:\n  a: {command: x, depends_on: [b]}\n  b: {command: x, depends_on: [a]}", 2, "depends on itself"),
    ("services:\n  a: {command: x}\n  b: {command: x, depends_on: {a: {condition: service_healthy}}}", 3, "service_healthy"),
    ("services:\n  web:\n    command: ${UNSET?set it}", 3, "set it"),
    ("services:\n  web:\n    command: ${", 3, "$$"),
    ("services:\n  web:\n    command: a $ b", 3, "$$"),
    ("services:\n  web: *nothing", 2, "not YAML"),
    ("a: &a [*a]\nservices: {web: {command: x}}", 1, "\"a\""),
    ("services:\n  web: &w {<<: *w}", 2, "merged"),
    ("services:\n  web: {<<: [1]}", 2, "mapping"),
    ("services: {? [a, b] : c}", 1, "key"),
    ("services: " + "[" * 3000, 2, "not YAML"),
    ("services: " + "[" * 3000 + "]" * 3000, 1, "mapping"),
    ("services: {web: " + "{a: " * 3000 + "}" * 3001, 1, "key"),
    ("x-a: &a [" + "1," * 400 + "]\nx-b: [" + "*a," * 2000 + "]\nservices: {web: [*a]}", 3, "mapping"),
    ("networks:\n  n: {driver: overlay}\nservices: {web: {command: x}}", 2, "overlay"),
    ("networks:\n  n: {driver_opts: {colour: blue}}\nservices: {web: {command: x}}", 2, "colour"),
    ("networks:\n  n: {driver_opts: {com.docker.network.driver.mtu: 1}}\nservices: {web: {command: x}}", 2, "576"),
    ("networks:\n  n: {ipam: {driver: x}}\nservices: {web: {command: x}}", 2, "default"),
    ("networks:\n  n: {ipam: {config: [{subnet: x}]}}\nservices: {web: {command: x}}", 2, "x"),
    ("networks:\n  n: {ipam: {config: [{subnet: 10.1.0.0/24}, {subnet: 10.2.0.0/24}]}}\nservices: {web: {command: x}}", 2, "one subnet"),
    ("networks:\n  n: {enable_ipv6: false, ipam: {config: [{subnet: 'fd00::/64'}]}}\nservices: {web: {command: x}}", 2, "enable_ipv6"),
    ("networks:\n  n: {external: true, internal: true}\nservices: {web: {command: x}}", 2, "internal"),
    ("networks:\n  n: {name: Not Valid}\nservices: {web: {command: x}}", 2, "Not Valid"),
    ("networks:\n  a: {name: same}\n  b: {name: same}\nservices: {web: {command: x}}", 3, "same"),
    ("networks:\n  n: {colour: blue}\nservices: {web: {command: x}}", 2, "colour"),
    ("networks:\n  n: {internal: perhaps}\nservices: {web: {command: x}}", 2, "perhaps"),
    ("networks: [a]\nservices: {web: {command: x}}", 1, "mapping"),
    ("services:\n" + "".join(f"  s{i}: {{command: x}}\n" for i in range(257)), 2, "256"),
    ("networks:\n" + "".join(f"  n{i}:\n" for i in range(65)) + "services: {web: {command: x}}", 2, "64"),
    ("services:\n  web:\n    command: x\n    labels:\n" + "".join(f"      k{i}: v\n" for i in range(65)), None, "at most 64"),
    ("services:\n  web:\n    command: x\n    ports: [" + "80," * 257 + "]", 4, "256"),
    ("services:\n  web:\n    command: x\n    dns: [" + "192.0.2.1," * 9 + "]", 4, "8"),
    ("#" + "x" * (1 << 20), None, "1048576"),
]


@pytest.mark.parametrize("text, line, word", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_by_line(project, text, line, word):
    host = project.host
    before = host.call("network.list"), host.call("guest.list")
    with open(os.path.join(project.directory, "compose.yaml"), "w", encoding="utf-8") as file:
        file.write(text)
    outcome = project.refused("up", "-d", says=[word, "compose.yaml"])
    if line:
        assert f"compose.yaml:{line}: " in outcome.err, str(outcome)
    assert (host.call("network.list"), host.call("guest.list")) == before


def test_a_file_that_is_not_there(project):
    project.refused("up", says=["compose.yaml", "--file"])
    project.refused("up", "-f", "nowhere.yaml", says="nowhere.yaml")
    project.refused("ps", "-f", ".", says=".")


def test_what_the_daemon_refuses_undoes_everything(project, host):
    before = host.call("network.list"), host.call("guest.list")
    project.write("""
        services: {web: {command: sleep infinity, networks: [a, b]}}
        networks:
          a: {ipam: {config: [{subnet: 10.72.0.0/24}]}}
          b: {ipam: {config: [{subnet: 10.72.0.0/25}]}}
        """)
    project.refused("up", "-d", says=["network b", "10.72.0.0"])
    project.write("services: {web: {command: sleep infinity, networks: {default: {ipv4_address: 192.0.2.1}}}}")
    project.refused("up", "-d", says=["service web", "192.0.2.1"])
    assert (host.call("network.list"), host.call("guest.list")) == before


def test_the_example(project, host):
    example = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "examples", "compose.yaml")
    with open(example, encoding="utf-8") as file:
        project.write(file.read())
    project.up()
    wait_for(lambda: "Directory listing" in fetch(host, "127.0.0.1", 8080), 10, "the web server")
    wait_for(lambda: "Directory listing" in host.moat("exec", "example-web", "--", "curl", "-sS", "-m", "5", "http://store:6000/",
                                                      check=False).out, 10, "the store")
    project.down()
