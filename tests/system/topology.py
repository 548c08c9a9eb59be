# SPDX-License-Identifier: GPL-2.0-or-later
"""The little world that the tests play in.

                      outside (web, DNS, echo servers: the internet)
                         |  198.51.100.0/24   2001:db8:51::/64
                      router
                         |  192.168.77.0/24   2001:db8:77::/64
            +------------+------------+
          host (moatd)              lan (a machine beside it)

The host's and the lan's links are called eth0, as on most machines. Further hosts can be added.
"""

import itertools
import os
import shutil
import tempfile

from netns import Namespace
from wait import wait_for

INTERNET = "198.51.100.2"
INTERNET6 = "2001:db8:51::2"
INTERNET_DNS = "198.51.100.53"
ROUTER = "192.168.77.1"
ROUTER6 = "2001:db8:77::1"
ROUTER_OUTSIDE = "198.51.100.1"
LAN_NET = "192.168.77.0/24"
LAN = "192.168.77.20"
LAN6 = "2001:db8:77::20"
HOST = "192.168.77.10"
HOST6 = "2001:db8:77::10"


class World:
    """Router, outside and lan; hosts plug into the lan."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="mt-")
        os.chmod(self.directory, 0o755)
        self._numbers = itertools.count(1)
        self._open = []
        try:
            self.router = self._space("router")
            self.outside = self._space("outside")
            self.lan = self._space("lan")
            self._wire()
        except BaseException:
            self.close()
            raise

    def _space(self, title, with_mounts=False):
        space = Namespace(title, with_mounts)
        self._open.append(space)
        return space

    def _wire(self):
        self.router.ip_batch([
            "link add lan0 address 02:00:c0:a8:4d:01 type bridge",
            "link set lan0 up",
            "link add out0 type veth peer name eth0 netns %d" % self.outside.pid,
            "link set out0 up",
            f"address add {ROUTER}/24 dev lan0",
            f"address add {ROUTER6}/64 dev lan0 nodad",
            f"address add {ROUTER_OUTSIDE}/24 dev out0",
            "address add 2001:db8:51::1/64 dev out0 nodad",
        ])
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.router.sysctl(name, 1)
        for space in (self.router, self.outside):
            space.sysctl("ipv4/icmp_ratelimit", 0)
        for name in ("bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"):
            self.router.sysctl(name, 0)
        self.outside.ip_batch([
            "link set eth0 up",
            f"address add {INTERNET}/24 dev eth0",
            f"address add {INTERNET_DNS}/24 dev eth0",
            f"address add {INTERNET6}/64 dev eth0 nodad",
            # As on the internet, there is no way back to a private address: what was not translated is lost.
            "route add default via 198.51.100.1",
            "route add blackhole 10.0.0.0/8",
            "route add blackhole 172.16.0.0/12",
            "route add default via 2001:db8:51::1",
        ])
        self.plug(self.lan, [f"{LAN}/24"], [f"{LAN6}/64"])

    def plug(self, space, addresses, addresses6, interface="eth0", default_route=True):
        """Connect a namespace to the lan and give it its addresses and its way out."""
        port = f"p{next(self._numbers)}"
        # A machine that is started anew is the same machine to its neighbours.
        mac = "02:00:" + ":".join(f"{int(part):02x}" for part in addresses[0].split("/")[0].split("."))
        self.router.ip_batch([
            f"link add {port} type veth peer name {interface} address {mac} netns {space.pid}",
            f"link set {port} master lan0 up",
        ])
        lines = [f"link set {interface} up"]
        lines += [f"address add {a} dev {interface}" for a in addresses]
        lines += [f"address add {a} dev {interface} nodad" for a in addresses6]
        if default_route:
            lines += [f"route add default via {ROUTER}", f"route add default via {ROUTER6}"]
        space.ip_batch(lines)
        wait_for(lambda: not [link for link in space.ip_json("-6", "address", "show", "tentative") if link.get("addr_info")], 5,
                 f"the addresses of {space.title} to be usable")
        return port

    def directory_for(self, name):
        path = os.path.join(self.directory, f"{name}{next(self._numbers)}")
        os.mkdir(path)
        # Guests run as other users too, and must reach what lies in here.
        os.chmod(path, 0o755)
        return path

    def close(self):
        for space in reversed(self._open):
            space.close()
        shutil.rmtree(self.directory, ignore_errors=True)
