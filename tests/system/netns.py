# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces without names.

A namespace lives as long as its holder, a sleeping child of the test run that dies with it. So a run that is
killed leaves nothing behind, and any number of runs go side by side. Commands enter by nsenter, which becomes the
command (same process id); sockets are made by a thread of the test process that enters for the time of the call.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000

# Every process of a test run carries this in its environment; a later run ends what a killed one left.
MARK = "MOAT_TEST_RUN"


def process_born(pid):
    """When a process started, in clock ticks since boot: with the id, a name that is never used twice."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]


MARK_VALUE = f"{os.getpid()}-{process_born(os.getpid())}"

_libc = ctypes.CDLL(None, use_errno=True)


def environment(extra=None):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MOAT_", "PYTEST_"))}
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env["LC_ALL"] = "C.UTF-8"
    env[MARK] = MARK_VALUE
    if extra:
        env.update({key: value for key, value in extra.items() if value is not None})
    return env


def setns(fd, kind):
    if _libc.setns(fd, kind) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")


def in_netns(path, function, *args, **kwargs):
    """Run function in a thread that has entered the network namespace at path; sockets it makes stay there."""
    outcome = {}

    def work():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd, CLONE_NEWNET)
            finally:
                os.close(fd)
            outcome["value"] = function(*args, **kwargs)
        except BaseException as error:  # handed to the caller, whatever it is
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def netns_inode(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


class Net:
    """What a network namespace can be asked to do, given a path to it."""

    def __init__(self, net_path, mount_path=None):
        self.net_path = net_path
        self.mount_path = mount_path

    def argv(self, args, cwd="/"):
        enter = ["nsenter", f"--net={self.net_path}"]
        if self.mount_path:
            enter += [f"--mount={self.mount_path}", f"--wdns={cwd}"]
        return enter + ["--"] + [os.fspath(arg) for arg in args]

    def popen(self, *args, cwd="/", env=None, clean_env=None, **kwargs):
        environ = clean_env if clean_env is not None else environment(env)
        if not self.mount_path:
            kwargs["cwd"] = cwd
        return subprocess.Popen(self.argv(args, cwd), env=environ, **kwargs)

    def run(self, *args, check=True, timeout=30, input=None, cwd="/", env=None):
        """Run a tool of the system in here; its output as text."""
        with self.popen(*args, cwd=cwd, env=env, text=True, stdin=subprocess.PIPE if input else subprocess.DEVNULL,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            try:
                out, err = child.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = child.communicate()
                raise AssertionError(f"{' '.join(map(str, args))}: still running after {timeout} s\n{out}{err}")
        if check and child.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, args))}: exit {child.returncode}\n{out}{err}{input or ''}")
        return out if check else subprocess.CompletedProcess(args, child.returncode, out, err)

    def ip(self, *args, check=True):
        return self.run("ip", *args, check=check)

    def ip_json(self, *args):
        return json.loads(self.run("ip", "-json", *args) or "[]")

    def ip_batch(self, lines):
        return self.run("ip", "-batch", "-", input="\n".join(lines) + "\n")

    def nft(self, text):
        """Rules as nft reads them; a block may be written on one line."""
        return self.run("nft", "-f", "-", input=text.replace("}", "}\n"))

    def inside(self, function, *args, **kwargs):
        return in_netns(self.net_path, function, *args, **kwargs)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, proto=0):
        return self.inside(socket.socket, family, kind, proto)

    def sysctl(self, name, value=None):
        path = "/proc/sys/net/" + name

        def work():
            if value is not None:
                with open(path, "w", encoding="ascii") as file:
                    file.write(str(value))
            with open(path, encoding="ascii") as file:
                return file.read().strip()

        return self.inside(work)

    def links(self):
        return {link["ifname"]: link for link in self.ip_json("-details", "link", "show")}

    def addresses(self, interface=None):
        """IPv4 and global IPv6 addresses, as a list of texts without prefix."""
        found = []
        for link in self.ip_json("address", "show"):
            if interface and link["ifname"] != interface:
                continue
            found += [a["local"] for a in link["addr_info"] if a.get("scope") != "link"]
        return found

    def ping(self, address, count=1, timeout=2, size=None, dont_fragment=False):
        """True where every echo was answered."""
        args = ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", str(timeout)]
        if size is not None:
            args += ["-s", str(size)]
        if dont_fragment:
            args += ["-M", "do"]
        return self.run(*args, address, check=False).returncode == 0


class Namespace(Net):
    """A namespace of our own, held by a sleeping process; with_mounts gives it its own mounts as well."""

    def __init__(self, title, with_mounts=False):
        self.title = title
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net"]
        if with_mounts:
            argv += ["--mount", "--propagation", "private"]
        argv += ["sh", "-c", "echo ready; exec sleep infinity"]
        self.holder = subprocess.Popen(argv, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"ready\n", f"cannot make the namespace of {title}"
        self.holder.stdout.close()
        pid = self.holder.pid
        super().__init__(f"/proc/{pid}/ns/net", f"/proc/{pid}/ns/mnt" if with_mounts else None)
        self.inode = netns_inode(pid)
        # Addresses can be used at once, instead of after a second of looking for duplicates.
        self.sysctl("ipv6/conf/default/accept_dad", 0)
        self.ip("link", "set", "lo", "up")

    @property
    def pid(self):
        return self.holder.pid

    def pids(self):
        """The processes in this network namespace, without the holder."""
        return [pid for pid in all_pids() if pid != self.pid and netns_inode(pid) == self.inode]

    def close(self):
        if self.holder.returncode is None:
            for pid in self.pids():
                if pid != os.getpid():
                    kill_quietly(pid)
            self.holder.kill()
            self.holder.wait()


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def process_name(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def sleepers(seconds):
    """The processes that are `sleep SECONDS`."""
    return [pid for pid in all_pids() if process_name(pid) == f"sleep {seconds}" and alive(pid)]


def unique_seconds(base):
    """A time to sleep that no other test run on this machine uses: it tells our processes from others."""
    return f"{base}.{os.getpid()}"


def process_environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return dict(pair.split("=", 1) for pair in file.read().decode(errors="replace").split("\0") if "=" in pair)
    except OSError:
        return {}


def process_state(pid):
    """The state letter of a process (R, S, T, Z, …), or None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def alive(pid):
    return process_state(pid) not in (None, "Z", "X")


def kill(pid, signal_number=9):
    """os.kill of one process; 0 and negative numbers would be whole groups."""
    assert isinstance(pid, int) and pid > 1, f"{pid} is no process to be killed"
    os.kill(pid, signal_number)


def kill_quietly(pid, signal_number=9):
    try:
        kill(pid, signal_number)
    except OSError:
        pass


def end_leftovers():
    """End the processes of earlier test runs that were killed before they could do so."""
    for pid in all_pids():
        mark = process_environment(pid).get(MARK)
        if not mark or mark == MARK_VALUE:
            continue
        owner, _, born = mark.partition("-")
        try:
            if process_born(owner) == born:
                continue
        except OSError:
            pass
        kill_quietly(pid)


def tool_missing(*names):
    return [name for name in names if not shutil.which(name)]
