# SPDX-License-Identifier: GPL-2.0-or-later
"""The command as such: help, version, exit codes, JSON, where the daemon is found."""

import json
import os
import re
import subprocess

import pytest

import daemon

COMMANDS = [["net", "create"], ["net", "ls"], ["net", "inspect"], ["net", "rm"], ["net", "prune"], ["run"], ["attach"], ["detach"], ["exec"],
            ["ps"], ["inspect"], ["port", "add"], ["port", "rm"], ["port", "ls"], ["localhost"], ["policy", "show"], ["policy", "set"],
            ["dns", "ls"], ["dns", "add"], ["dns", "rm"], ["events"], ["status"], ["doctor"], ["teardown"]]
GROUPS = ["net", "port", "policy", "dns"]

OPTIONS = {
    "net create": ["--subnet", "--gateway", "--ip-range", "--ipv4", "--ipv6", "--subnet6", "--gateway6", "--internal", "--isolated", "--host-access",
                   "--mtu", "--bridge", "--no-dns", "--dns", "--label", "--ignore"],
    "net ls": ["-q"], "net rm": ["--force"], "net prune": ["--yes"],
    "run": ["-n", "--name", "--network", "--mode", "-p", "--publish", "--allow", "--deny", "--log-denied", "--dns", "--dns-search",
            "--add-host", "--hostname", "--rootfs", "-u", "--user", "-w", "--workdir", "-e", "--env", "--label"],
    "attach": ["--network", "--netns", "--pid", "--tap", "--mode", "-p", "--allow", "--deny", "--tap-owner", "--multi-queue", "--vnet-hdr",
               "--label"],
    "detach": ["--network"], "exec": ["-u", "--user"], "ps": ["-q"], "policy set": ["--mode", "--allow", "--deny", "--log-denied"],
    "dns ls": ["--network"], "dns add": ["--network"], "dns rm": ["--network"], "teardown": ["--yes"],
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_each_command(host, command):
    outcome = host.moat(*command, "--help")
    assert outcome.out.startswith(("Usage:", "usage:", "moat")) and " ".join(["moat", *command]) in outcome.out
    for option in OPTIONS.get(" ".join(command), []) + ["--json", "--socket"]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", outcome.out), f"{option} is not explained:\n{outcome}"
    assert outcome.err == ""
    assert all(len(row) <= 100 for row in outcome.out.splitlines()), "lines too long for a terminal"


def test_help_needs_no_daemon(machine, internet):
    for arguments in (["--help"], ["net", "--help"], ["run", "--help"], ["--version"], ["help"]):
        outcome = machine.moat(*arguments, check=False)
        assert outcome.code == 0 and outcome.out or arguments == ["help"], str(outcome)


def test_help_lists_all_commands(host):
    text = host.moat("--help").out
    for command in COMMANDS:
        assert command[0] in text
    for group in GROUPS:
        shown = host.moat(group, "--help").out
        for command in COMMANDS:
            if command[0] == group:
                assert command[1] in shown


def test_without_a_command(host):
    outcome = host.moat(check=False)
    assert outcome.code == 2 and (outcome.err or outcome.out)


def test_version(host):
    assert re.fullmatch(r"moat \d+\.\d+(\.\d+)?\S*\n", host.moat("--version").out)


# Exit codes

def test_exit_codes(host):
    assert host.moat("net", "ls").code == 0
    assert host.moat("net", "inspect", "nowhere", check=False).code == 1
    assert host.moat("net", "inspect", check=False).code == 2
    outcome = host.moat("net", "ls", check=False, env={"MOAT_SOCKET": "/no/such/socket"})
    assert outcome.code == 3 and "/no/such/socket" in outcome.err and outcome.err.startswith("moat: ")


@pytest.mark.parametrize("command", [["net", "ls"], ["ps"], ["status"], ["doctor"], ["events"], ["teardown", "--yes"], ["port", "ls"], ["dns", "ls"],
                                     ["net", "create", "x"], ["detach", "x"]], ids=" ".join)
def test_unreachable_daemon_is_3(host, command):
    host.stop()
    outcome = host.moat(*command, check=False)
    assert outcome.code == 3, str(outcome)
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("moat: ") and host.socket_path in outcome.err
    assert outcome.out == ""
    host.start()


def test_a_socket_that_nobody_listens_on_is_3(host):
    host.crash()
    assert host.moat("ps", check=False).code == 3
    host.start()


def test_a_socket_of_something_else(host):
    """A path that is no socket, and a server that is not moatd."""
    outcome = host.moat("ps", "--socket", "/etc/passwd", check=False)
    assert outcome.code == 3 and "/etc/passwd" in outcome.err


def test_several_wrong_names_are_all_said(host):
    outcome = host.moat("net", "rm", "one", "two", check=False)
    assert outcome.code == 1
    assert "one" in outcome.err


# The socket

def test_socket_option_before_and_after_the_command(host):
    nowhere = {"MOAT_SOCKET": "/no/such/socket"}
    assert host.moat("--socket", host.socket_path, "net", "ls", "-q", env=nowhere).out == "default\n"
    assert host.moat("net", "ls", "-q", "--socket", host.socket_path, env=nowhere).out == "default\n"
    assert host.moat("net", "--socket", host.socket_path, "ls", "-q", env=nowhere).out == "default\n"
    assert host.moat("net", "ls", f"--socket={host.socket_path}", "-q", env=nowhere).out == "default\n"


def test_default_socket_is_named_when_nothing_is_there(host):
    outcome = host.moat("ps", check=False, env={"MOAT_SOCKET": None})
    assert outcome.code == 3 and "/run/moat/moat.sock" in outcome.err


def test_empty_moat_socket_is_no_socket(host):
    outcome = host.moat("ps", check=False, env={"MOAT_SOCKET": ""})
    assert outcome.code == 3 and "/run/moat/moat.sock" in outcome.err


# JSON

def test_json_equals_the_rpc_result(host):
    host.call("network.create", name="blue")
    host.attach_guest("web", "-p", "8080:80")
    host.call("dns.add", name="printer", ip="192.0.2.1")
    for arguments, method, params in [
            (["net", "ls"], "network.list", {}), (["ps"], "guest.list", {}), (["port", "ls"], "port.list", {}),
            (["port", "ls", "web"], "port.list", {"guest": "web"}), (["dns", "ls"], "dns.list", {}),
            (["dns", "ls", "--network", "blue"], "dns.list", {"network": "blue"}), (["policy", "show", "web"], "policy.get", {"guest": "web"})]:
        outcome = host.moat(*arguments, "--json")
        assert outcome.json == host.call(method, **params), arguments
        assert outcome.out.count("\n") == 1 and outcome.out.endswith("\n"), "not one document on one line"
    shown, asked = host.moat("status", "--json").json, host.call("system.status")
    assert {k: v for k, v in shown.items() if k != "uptime_seconds"} == {k: v for k, v in asked.items() if k != "uptime_seconds"}
    assert [c["name"] for c in host.moat("doctor", "--json").json] == [c["name"] for c in host.call("system.doctor")]


def test_json_of_commands_that_answer_nothing(host):
    host.call("network.create", name="blue")
    host.attach_guest("web", "-p", "8080:80")
    for arguments in (["port", "rm", "web", "8080:80"], ["dns", "add", "printer", "192.0.2.1"], ["dns", "rm", "printer"],
                      ["localhost", "web", "on"], ["localhost", "web", "off"], ["detach", "web"], ["net", "rm", "blue"]):
        assert host.moat(*arguments, "--json").json == {}, arguments


def test_json_of_changes(host):
    space = host.guest_space()
    assert host.moat("--json", "attach", "web", "--network", "default", "--pid", space.pid).json == host.call("guest.get", name="web")
    added = host.moat("port", "add", "web", "8080:80", "--json").json
    assert added and all(p["host_port"] == 8080 for p in (added if isinstance(added, list) else added.get("ports", [])))


def test_refusals_with_json(host):
    outcome = host.moat("net", "inspect", "nowhere", "--json", check=False)
    assert outcome.code == 1 and outcome.err.startswith("moat: ")
    if outcome.out:
        json.loads(outcome.out)


# Tables

def test_tables_are_for_people(host):
    host.call("network.create", name="a-network-with-quite-a-long-name", subnet="10.9.0.0/24")
    rows = host.moat("net", "ls").out.splitlines()
    column = rows[0].index("SUBNET") if "SUBNET" in rows[0] else None
    assert column is not None
    assert all(re.match(r"\d", row[column:]) for row in rows[1:]), "columns are not aligned"
    assert not any(row != row.rstrip() for row in rows), "white space at the end of lines"


def test_output_to_a_closed_pipe(host):
    """moat ps | head -0: no crash, no noise."""
    command = host.command(["net", "ls"])
    outcome = subprocess.run(host.argv(["bash", "-c", '"$@" | true; echo "${PIPESTATUS[0]}"', "bash", *command]), text=True, capture_output=True,
                             env=host._environment({}), timeout=20, check=False)
    assert outcome.stdout.strip() in ("0", "141", "1"), outcome
    assert not daemon.SANITIZER.search(outcome.stderr)


def test_output_to_a_full_device_is_an_error(host):
    with open("/dev/full", "w", encoding="ascii") as full:
        job = host.spawn("net", "ls", stdout=full)
        outcome = job.finish()
    assert outcome.code == 1 and outcome.err.startswith("moat: "), str(outcome)


# Options

def test_options_in_any_order(host):
    host.moat("net", "create", "--subnet", "10.9.0.0/24", "blue", "--mtu=1300")
    assert host.call("network.get", name="blue")["mtu"] == 1300
    host.moat("net", "rm", "--", "blue")


def test_repeated_single_options(host):
    """The last one counts, or it is refused; never both."""
    outcome = host.moat("net", "create", "blue", "--subnet", "10.9.0.0/24", "--subnet", "10.10.0.0/24", check=False)
    if outcome.code == 0:
        assert host.call("network.get", name="blue")["subnet"] == "10.10.0.0/24"
    else:
        assert outcome.code == 2


def test_short_options_together(host):
    assert host.moat("run", "-nweb", "-w/", "-u0", "pwd").out == "/\n"


# Completions

@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_name_every_command_and_option(machine, internet, shell):
    outcome = machine.moat("completion", shell, check=False)
    assert outcome.code == 0 and outcome.out, str(outcome)
    for command in COMMANDS:
        for word in command:
            assert re.search(rf"\b{word}\b", outcome.out), f"{' '.join(command)} is missing"
    for options in OPTIONS.values():
        for option in options:
            assert option.lstrip("-") in outcome.out, f"{option} is missing"
    if shell == "bash":
        check = subprocess.run(["bash", "-n"], input=outcome.out, text=True, capture_output=True, check=False)
        assert check.returncode == 0, check.stderr


def test_bash_completion_completes(host):
    script = host.moat("completion", "bash").out
    path = os.path.join(host.temporary("completion"), "moat")
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)

    def complete(*words):
        driver = f"""
source {path}
COMP_WORDS=({' '.join(f"'{w}'" for w in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE="{' '.join(words)}"; COMP_POINT=${{#COMP_LINE}}
f=$(complete -p moat | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$f moat '{words[-1]}' '{words[-2]}'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        bindir = os.path.dirname(daemon.binary("moat"))
        outcome = subprocess.run(host.argv(["bash", "--norc", "-c", driver]), text=True, capture_output=True, check=False,
                                 env=host._environment({"PATH": f"{bindir}:/usr/bin:/bin"}))
        return outcome.stdout.split()

    assert {"create", "ls", "rm"} <= set(complete("moat", "net", ""))
    assert "--subnet" in complete("moat", "net", "create", "--su")
    host.attach_guest("completed")
    assert "completed" in complete("moat", "detach", "")
    assert "default" in complete("moat", "net", "inspect", "")


@pytest.mark.parametrize("arguments, says", [
    (["policy", "set", "web", "--allow", "bogus!"], '--allow: "bogus!" is no destination'),
    (["policy", "set", "web", "--deny", "any:0"], '--deny: "any:0" has a bad port'),
    (["run", "--allow", "bogus!", "--", "true"], '--allow: "bogus!" is no destination'),
    (["attach", "x", "--network", "default,mac=01:00:00:00:00:01", "--pid", "PID"], "--network: mac: 01:00:00:00:00:01 is a multicast address"),
    (["net", "create", "x", "--gateway", "10.1.0.1"], "--gateway: needs a subnet given too"),
    (["net", "create", "x", "--no-dns", "--dns", "192.0.2.1"], "--dns: there is no name service"),
    (["attach", "web", "--network", "side", "-p", "80"], "--publish: is given with"),
    (["policy", "test", "web", "any:80"], "DEST"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_malformed_values_speak_of_options(host, arguments, says):
    """Exit 2, in the words of who typed it, whether the command or the daemon found it."""
    space = host.guest_space()
    host.attach_guest("web")
    host.moat("net", "create", "side")
    outcome = host.moat(*[space.pid if word == "PID" else word for word in arguments], check=False)
    assert outcome.code == 2 and says in outcome.err and len(outcome.err.splitlines()) == 1, str(outcome)
    assert "[0]" not in outcome.err and "policy." not in outcome.err


def test_what_the_daemon_finds_malformed_ends_run_with_125(host):
    outcome = host.moat("run", "--network", "default,mac=01:00:00:00:00:01", "--", "true", check=False)
    assert outcome.code == 125 and "--network: mac: 01:00:00:00:00:01 is a multicast address" in outcome.err
