# SPDX-License-Identifier: GPL-2.0-or-later
"""moat run --rootfs: a command in another file system, which stays as it is."""

import os
import re
import shutil
import stat

import pytest

import servers
import trace
from netns import Net, sleepers, unique_seconds
from terminal import Terminal
from wait import wait_for

PROGRAMS = ["sh", "cat", "ls", "touch", "rm", "id", "sleep", "env", "mkdir", "chmod", "chown", "mknod", "mount", "stat",
            "readlink", "dd", "getent", "ln"]


def copy_program(tree, name):
    """A program of this system with the libraries that it needs."""
    path = shutil.which(name)
    paths = {path}
    listing = Net("/proc/self/ns/net").run("ldd", path, check=False).stdout
    paths.update(re.findall(r"(/\S+)", listing))
    for source in paths:
        target = tree + source
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(source, target)
    for folder in ("/bin", "/usr/bin"):
        link = f"{tree}{folder}/{name}"
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.lexists(link):
            os.symlink(path, link)


@pytest.fixture(scope="module")
def tree(world):
    """A small root file system."""
    top = os.path.join(world.directory_for("tree"), "root")
    os.mkdir(top)
    for name in PROGRAMS:
        copy_program(top, name)
    for folder in ("etc", "proc", "sys", "dev", "tmp", "root", "var/lib/app"):
        os.makedirs(f"{top}/{folder}", exist_ok=True)
    for path, text in {"etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:1234:1234::/:/bin/sh\n",
                       "etc/group": "root:x:0:\napp:x:1234:\n", "etc/os-release": "ID=tree\n",
                       "etc/nsswitch.conf": "hosts: files dns\n", "etc/resolv.conf": "nameserver 203.0.113.1\n",
                       "var/lib/app/data": "precious\n"}.items():
        with open(f"{top}/{path}", "w", encoding="ascii") as file:
            file.write(text)
    os.chown(f"{top}/var/lib/app", 1234, 1234)
    os.chmod(f"{top}/tmp", 0o1777)
    for library in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"):
        for folder in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu"):
            if os.path.exists(f"{folder}/{library}"):
                os.makedirs(top + folder, exist_ok=True)
                shutil.copy(f"{folder}/{library}", f"{top}{folder}/{library}")
    yield top


def listing(tree):
    return trace.read_files([tree])


@pytest.fixture
def untouched(tree):
    """The tree; when the test is over it must not have changed in any byte."""
    before = listing(tree)
    times = {path: os.lstat(path).st_mtime_ns for path in before}
    yield tree
    assert listing(tree) == before, "the --rootfs directory was written to"
    assert {path: os.lstat(path).st_mtime_ns for path in before} == times


def inside(host, tree, script, *options, **kwargs):
    return host.moat("run", "--rootfs", tree, *options, "--", "/bin/sh", "-c", script, **kwargs)


def test_the_command_sees_the_tree(host, untouched):
    assert inside(host, untouched, "cat /etc/os-release").out == "ID=tree\n"
    assert set(inside(host, untouched, "ls /").out.split()) == set(os.listdir(untouched))


def test_nothing_of_the_host_is_seen(host, untouched):
    outcome = inside(host, untouched, f"ls {untouched} {host.state_dir} /home /boot; cat /proc/self/mountinfo", check=False)
    assert "moat.db" not in outcome.out
    roots = [line.split()[4] for line in outcome.out.splitlines() if line[:1].isdigit()]
    assert all(path == "/" or path.startswith(("/proc", "/sys", "/dev", "/etc", "/tmp", "/run")) for path in roots), roots
    assert roots.count("/") == 1


def test_writes_are_seen_inside_and_gone_afterwards(host, untouched):
    out = inside(host, untouched, "echo changed > /etc/os-release; echo new > /new; rm /var/lib/app/data; chmod 700 /root; "
                                  "cat /etc/os-release /new; ls /var/lib/app; ln -s x /link; mkdir /dir").out
    assert out == "changed\nnew\n"
    assert inside(host, untouched, "cat /etc/os-release; ls /new", check=False).out == "ID=tree\n"


def test_two_guests_of_one_tree_do_not_see_each_others_writes(host, untouched):
    one = host.run_guest("one", "--rootfs", untouched, command=("sh", "-c", "echo one > /mine; exec sleep 1000"))
    two = host.run_guest("two", "--rootfs", untouched, command=("sh", "-c", "echo two > /mine; exec sleep 1000"))
    wait_for(lambda: one.exec("cat", "/mine", check=False).out == "one\n", 3, "the first guest's file")
    wait_for(lambda: two.exec("cat", "/mine", check=False).out == "two\n", 3, "the second guest's file")


def test_proc_sys_and_dev(host, untouched):
    out = inside(host, untouched, "readlink /proc/self >/dev/null && echo proc; ls /sys/class/net; "
                                  "echo x > /dev/null && cat /dev/null && echo null; dd if=/dev/zero bs=1 count=1 2>/dev/null | cat >/dev/null "
                                  "&& echo zero; dd if=/dev/urandom of=/dev/null bs=1 count=1 2>/dev/null && echo urandom; "
                                  "ls /dev").out.split()
    for word in ("proc", "eth0", "lo", "null", "zero", "urandom", "full", "random", "tty", "pts", "shm", "fd", "stdin", "stdout",
                 "stderr", "ptmx"):
        assert word in out, f"{word} is missing: {out}"
    assert not {"sda", "vda", "mem", "kmsg", "kvm"} & set(out), "the host's devices are inside"


def test_standard_streams_by_name(host, untouched):
    outcome = inside(host, untouched, "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin", input="in\n")
    assert (outcome.out, outcome.err) == ("out\nin\n", "err\n")


def test_proc_of_the_host_is_not_shown(host, untouched):
    names = inside(host, untouched, "cat /proc/[0-9]*/comm").out.split()
    assert "moatd" not in names and len(names) <= 4


def test_resolv_conf_and_hosts(host, untouched):
    guest = host.run_guest("web", "--rootfs", untouched, "--add-host", "db:192.0.2.9")
    text = guest.exec("cat", "/etc/resolv.conf").out
    assert "nameserver 10.88.0.1" in text and "203.0.113.1" not in text
    assert "192.0.2.9" in guest.exec("cat", "/etc/hosts").out
    assert not os.path.exists(f"{untouched}/etc/hosts")


def test_names_resolve_inside(host, untouched):
    web = host.attach_guest("web")
    assert web.ip_address in inside(host, untouched, "getent ahostsv4 web").out


def test_a_tree_without_the_usual_directories(host, tree, world):
    """Mount points that the tree lacks are made in the throw-away layer."""
    bare = os.path.join(world.directory_for("bare"), "root")
    shutil.copytree(tree, bare, symlinks=True, ignore=shutil.ignore_patterns("etc", "proc", "sys", "dev", "tmp", "var", "root"))
    before = listing(bare)
    out = inside(host, bare, "cat /etc/resolv.conf; readlink /proc/self && echo x > /dev/null && echo fine").out
    assert "nameserver 10.88.0.1" in out and "fine" in out
    assert listing(bare) == before


def test_resolv_conf_that_is_a_symbolic_link_inside(host, tree, world):
    """A link in an untrusted tree must not lead moat to a file of the host."""
    copy = os.path.join(world.directory_for("link"), "root")
    shutil.copytree(tree, copy, symlinks=True)
    os.unlink(f"{copy}/etc/resolv.conf")
    victim = os.path.join(host.temporary("victim"), "file")
    with open(victim, "w", encoding="ascii") as file:
        file.write("mine\n")
    for target in (victim, "/../../../../../.." + victim, "../run/systemd/resolve/stub-resolv.conf", "resolv.conf"):
        os.symlink(target, f"{copy}/etc/resolv.conf")
        before = listing(copy)
        outcome = inside(host, copy, "cat /etc/resolv.conf", check=False)
        assert "mine" not in outcome.out
        if outcome.code == 0:
            assert "nameserver 10.88.0.1" in outcome.out, str(outcome)
        else:
            assert outcome.code in (1, 125), str(outcome)
        assert open(victim, encoding="ascii").read() == "mine\n", f"wrote through a link to {target}"
        assert listing(copy) == before
        os.unlink(f"{copy}/etc/resolv.conf")


def test_path_is_searched_inside(host, untouched):
    assert host.moat("run", "--rootfs", untouched, "--", "cat", "/etc/os-release").out == "ID=tree\n"
    outcome = host.moat("run", "--rootfs", untouched, "--", "python3", check=False)
    assert outcome.code == 127, f"a program of the host was found inside:\n{outcome}"


def test_user_and_directory(host, untouched):
    assert inside(host, untouched, "id -u; id -g; ls -ld /var/lib/app", "-u", "1234:1234").out.split()[:2] == ["1234", "1234"]
    out = inside(host, untouched, "echo mine > data2 && cat data2", "-u", "1234:1234", "-w", "/var/lib/app").out
    assert out == "mine\n"
    outcome = inside(host, untouched, "true", "-w", "/not/there", check=False)
    assert outcome.code == 125 and "/not/there" in outcome.err


def test_owners_and_modes_are_kept(host, untouched):
    assert inside(host, untouched, "stat -c '%u %g %a' /var/lib/app /tmp").out.split("\n")[:2] == ["1234 1234 755", "0 0 1777"]


def test_relative_directories_and_links_to_directories(host, untouched):
    link = os.path.join(host.temporary("links"), "tree")
    os.symlink(untouched, link)
    assert inside(host, link, "cat /etc/os-release").out == "ID=tree\n"
    assert inside(host, "root", "cat /etc/os-release", cwd=os.path.dirname(untouched)).out == "ID=tree\n"


@pytest.mark.parametrize("name", ["with space", "comma,comma", "colon:colon", "quote'\"", "ü", "back\\slash"])
def test_directory_names_of_any_kind(host, tree, name):
    place = os.path.join(host.temporary("odd"), name)
    os.mkdir(place)
    host.run("mount", "--bind", tree, place)
    try:
        assert inside(host, place, "cat /etc/os-release").out == "ID=tree\n"
    finally:
        host.run("umount", place)


def test_the_hosts_own_root(host):
    out = host.moat("run", "--rootfs", "/", "--", "sh", "-c", "echo lost > /etc/lost-by-moat; cat /etc/lost-by-moat").out
    assert out == "lost\n"
    assert not os.path.exists(host.path("/etc/lost-by-moat")) and not os.path.exists("/etc/lost-by-moat")


def test_no_way_back_to_the_hosts_files(host, untouched):
    """pivot_root, not chroot: the old root is gone and not just out of sight."""
    out = inside(host, untouched, "cat /proc/self/mountinfo; cat /proc/1/root/etc/os-release; ls /proc/1/root").out
    assert "ID=tree" in out and "/dev/vda" not in out and "/dev/sda" not in out


def test_processes_and_layer_are_gone_at_the_end(host, untouched):
    before = open(f"/proc/{host.pid}/mountinfo", encoding="utf-8").read()
    marker = unique_seconds(4713)
    inside(host, untouched, f"sleep {marker} & sleep {marker} & echo x > /x")
    assert sleepers(marker) == []
    assert open(f"/proc/{host.pid}/mountinfo", encoding="utf-8").read() == before


def test_publishing_from_a_tree(host, lan, untouched):
    guest = host.run_guest("web", "--rootfs", untouched, "-p", "8080:80")
    with servers.TcpServer(guest, 80, name="tree"):
        assert servers.tcp_greeting(host, "127.0.0.1", 8080)[0] == "tree"


def test_terminal_inside(host, untouched):
    env = host._environment({"TERM": "dumb", "PS1": "inner$ "})
    with Terminal(host, host.command(["run", "--rootfs", untouched, "--", "sh", "-i"]), env) as term:
        term.expect(r"inner\$ ", 8)
        term.type("echo $((6*7)) > /dev/tty\n")
        term.expect("42")
        term.type("exit 3\n")
        assert term.end() == 3


def test_devices_inside_can_not_be_made_by_another_user(host, untouched):
    outcome = inside(host, untouched, "mknod /tmp/null c 1 3", "-u", "1234:1234", check=False)
    assert outcome.code != 0


def test_special_files_of_dev_have_the_usual_modes(host, untouched):
    out = inside(host, untouched, "stat -c '%F %a %n' /dev/null /dev/zero /dev/tty /dev/pts/ptmx").out
    for name in ("/dev/null", "/dev/zero"):
        assert re.search(rf"character special file 666 {name}\b", out), out
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_pwd_names_the_directory(host, untouched):
    """The caller's directory does not exist inside; what -e says is said all the same."""
    env = {"PWD": "/nowhere", "OLDPWD": "/tmp"}
    script = 'echo "$PWD $(pwd) ${OLDPWD-none}"'
    run = ("run", "--rootfs", untouched)
    names = host.moat(*run, "--", "env", env=env).out.splitlines()
    assert "PWD=/" in names and not any(name.startswith("OLDPWD=") for name in names)
    assert "PWD=/etc" in host.moat(*run, "-w", "/etc", "--", "env", env=env).out.splitlines()
    assert "PWD=/usr" in host.moat("run", "-w", "/usr", "--", "env", env=env).out.splitlines()
    assert "PWD=/x" in host.moat(*run, "-e", "PWD=/x", "--", "env", env=env).out.splitlines()
    assert host.moat(*run, "--", "/bin/sh", "-c", script, env=env).out == "/ / none\n"
