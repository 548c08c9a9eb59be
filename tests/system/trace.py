# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host looks like, and how two looks differ: the proof that nothing was left behind."""

import hashlib
import json
import os
import re
import stat

from netns import Net, process_name

# Counters of the kernel, and entries that can't be read.
VOLATILE_SYSCTLS = re.compile(r"netfilter/nf_conntrack_count$|/route/flush$|/stable_secret$")

# A bridge counts its timers down, a link's statistics go up, a bridge's offload limits follow the ports it has had.
VOLATILE_KEYS = re.compile(r"_timer$|^tso_max_|^(stats64|stats|xstats|valid_life_time|preferred_life_time|age|used|expires)$")

# The kernel looks for a carrier in its own time, up to a second after a link came up.
CARRIER_KEYS = {"operstate", "state"}
CARRIER_FLAGS = {"NO-CARRIER", "LOWER_UP", "linkdown"}


def read_sysctls(top="/proc/sys/net"):
    """{path below top: value}. Several hundred files, read for each test: by the fewest system calls."""
    found = {}

    def read(directory, name, key):
        try:
            fd = os.open(name, os.O_RDONLY, dir_fd=directory)
        except OSError:
            return
        try:
            # The kernel clears as much memory as is asked for; few values are longer than a line.
            value = os.read(fd, 2048)
            if len(value) == 2048:
                value = os.pread(fd, 1 << 20, 0)
            found[key] = value.decode(errors="replace").strip()
        except OSError:
            return
        finally:
            os.close(fd)

    def walk(path, parent, prefix):
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)
        except OSError:
            return  # a link that went meanwhile
        try:
            with os.scandir(directory) as scan:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]
            for name, is_directory in entries:
                key = prefix + name
                if is_directory:
                    walk(name, directory, key + "/")
                elif not VOLATILE_SYSCTLS.search(key):
                    read(directory, name, key)
        finally:
            os.close(directory)

    walk(top, None, "")
    return found


def without_volatile(value):
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in value.items()
                if not VOLATILE_KEYS.search(k) and not (k in CARRIER_KEYS and v != ["PERMANENT"])}
    if isinstance(value, list):
        return [without_volatile(v) for v in value if not (isinstance(v, str) and v in CARRIER_FLAGS)]
    return value


def _keyed(rows):
    """Rows as a dictionary, so that a difference shows the row and not the whole list."""
    texts = sorted(json.dumps(without_volatile(row), sort_keys=True) for row in rows)
    return {f"{text}#{texts[:i].count(text)}": "present" for i, text in enumerate(texts)}


def read_files(directories):
    found = {}
    for top in directories:
        if not os.path.lexists(top):
            continue
        for directory, names, files in os.walk(top):
            for name in [""] + names + files if directory == top else names + files:
                path = os.path.join(directory, name) if name else directory
                found[path] = describe_file(path)
    return found


def describe_file(path):
    try:
        info = os.lstat(path)
    except OSError as error:
        return str(error)
    text = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            text += f" {info.st_size} bytes {hashlib.sha256(file.read()).hexdigest()[:16]}"
    elif stat.S_ISLNK(info.st_mode):
        text += f" -> {os.readlink(path)}"
    return text


def read_mounts(pid):
    """Mount points with source and type. Identifiers and counters differ from mount to mount."""
    found = {}
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            dash = fields.index("-")
            key = f"{fields[4]} {fields[dash + 1]} {fields[dash + 2]}"
            while key in found:
                key += "'"
            found[key] = fields[5]
    return found


IP_QUESTIONS = ["link show", "address show", "route show table all", "rule show", "neigh show proxy", "neigh show nud permanent"]


def ip_documents(net, family, questions):
    """The answers of ip to several questions, by one process."""
    text = net.run("ip", family, "-details", "-json", "-batch", "-", input="\n".join(questions) + "\n")
    decoder, documents, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        document, position = decoder.raw_decode(text, position + len(text[position:]) - len(text[position:].lstrip()))
        documents.append(document)
    assert len(documents) == len(questions), f"ip answered {len(documents)} of {len(questions)} questions: {text}"
    return documents


class Trace:
    """Everything of a namespace that moat may touch, as nested dictionaries {kind: {thing: state}}."""

    def __init__(self, space, directories=(), mounts_of=None, processes=True):
        net = Net(space.net_path)
        links, addresses, routes, rules, proxies, permanent = ip_documents(net, "-4", IP_QUESTIONS)
        _, addresses6, routes6, rules6, proxies6, permanent6 = ip_documents(net, "-6", IP_QUESTIONS)
        self.state = {
            "link": {link["ifname"]: without_volatile(link) for link in links},
            "address": {link["ifname"]: without_volatile(link["addr_info"]) for link in addresses},
            "IPv6 address": {link["ifname"]: without_volatile(link["addr_info"]) for link in addresses6},
            "route": _keyed(routes), "IPv6 route": _keyed(routes6),
            "rule": _keyed(rules), "IPv6 rule": _keyed(rules6),
            "neighbour proxy": _keyed(proxies + proxies6),
            "permanent neighbour": _keyed(permanent + permanent6),
            "nft": read_ruleset(net),
            "sysctl": net.inside(read_sysctls),
            "file": read_files(directories),
        }
        if mounts_of:
            self.state["mount"] = read_mounts(mounts_of)
        if processes:
            self.state["process"] = {f"{pid} {process_name(pid)}": "running" for pid in space.pids()}

    def differences(self, after):
        """What is different in `after`, one line each, as an administrator would say it."""
        lines = []
        # A link that came or went is one line, not one more for each of its settings.
        links = self.state["link"].keys() ^ after.state["link"].keys()
        for kind, before_things in self.state.items():
            after_things = after.state.get(kind, {})
            for key in sorted(before_things.keys() | after_things.keys()):
                old, new = before_things.get(key), after_things.get(key)
                if old == new or kind == "sysctl" and links.intersection(key.split("/")):
                    continue
                if old is None:
                    lines.append(f"left behind: {kind} {key}: {_short(new)}")
                elif new is None:
                    lines.append(f"gone: {kind} {key}: {_short(old)}")
                else:
                    lines.append(f"changed: {kind} {key}: {_change(old, new)}")
        if len(lines) > 40:
            lines[30:] = [f"… and {len(lines) - 30} more"]
        return lines


def _short(value, limit=300):
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= limit else text[:limit] + "…"


def _change(old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        return ", ".join(f"{k}: {_change(old.get(k), new.get(k))}" for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    return f"{_short(old)} → {_short(new)}"


def read_ruleset(net):
    """The ruleset per table, without counters' values and without who owns a table: a process that may come and go."""
    text = net.run("nft", "list", "ruleset")
    text = re.sub(r"packets \d+ bytes \d+", "packets … bytes …", text)
    text = re.sub(r"expires \S+", "", text)
    text = re.sub(r"(?m) # progname .*$|^\tflags (owner)?\n", "", text)
    return {table.split("{", 1)[0].strip(): table for table in re.split(r"(?m)^(?=table )", text) if table.strip()}


def check_same(before, after, what):
    lines = before.differences(after)
    assert not lines, f"{what}:\n  " + "\n  ".join(lines)


def root_leftovers():
    """Links that moat must never have put into the machine's own namespace."""
    found = []
    for name in os.listdir("/sys/class/net"):
        try:
            with open(f"/sys/class/net/{name}/ifalias", encoding="utf-8", errors="replace") as file:
                alias = file.read().strip()
        except OSError:
            continue
        if name.startswith("moat") or alias.startswith("moat:"):
            found.append(f"link {name} {alias}")
    return found


def root_state():
    """The settings of the machine's own namespace that networking programs like to change."""
    root = Net("/proc/self/ns/net")
    names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/route_localnet",
             "ipv4/conf/default/route_localnet", "ipv4/conf/all/rp_filter", "bridge/bridge-nf-call-iptables"]
    state = {}
    for name in names:
        try:
            state[name] = root.sysctl(name)
        except OSError:
            state[name] = None
    state["nftables of moat"] = [line for line in root.run("nft", "list", "tables").splitlines() if "moat" in line]
    state["/etc/resolv.conf"] = describe_file("/etc/resolv.conf")
    state["/etc/hosts"] = describe_file("/etc/hosts")
    return state
