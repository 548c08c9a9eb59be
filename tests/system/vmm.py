# SPDX-License-Identifier: GPL-2.0-or-later
"""A VMM without a machine: it opens a tap as QEMU would, and carries frames to a namespace with a kernel of its own
idea of the network: eth0 in there is what a guest kernel has. Real DHCP clients run in it."""

import fcntl
import os
import select
import socket
import struct
import threading

from netns import Namespace, in_netns

TUNSETIFF = 0x400454CA
TUNSETVNETHDRSZ = 0x400454D8
TUNGETIFF = 0x800454D2
IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000

VNET_HEADER = 10


def open_tap(net_path, name, flags=0):
    """An open queue of the tap of that name in that namespace; made where there is none."""

    def work():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | flags))
        except OSError:
            os.close(fd)
            raise
        return fd

    return in_netns(net_path, work)


def tap_flags(fd):
    return struct.unpack("16sH22x", fcntl.ioctl(fd, TUNGETIFF, bytes(40)))[1]


def tap_name(fd):
    return struct.unpack("16sH22x", fcntl.ioctl(fd, TUNGETIFF, bytes(40)))[0].rstrip(b"\0").decode()


class Machine(Namespace):
    """A guest behind a tap. Without `tap_fd` it opens the tap itself; frames pass as they are."""

    def __init__(self, host, name, interface=0, tap_fd=None, vnet_hdr=False):
        super().__init__(name)
        self.host = host
        self.name = name
        self.info = host.call("guest.get", name=name)
        self.vnet_hdr = vnet_hdr
        self._stopped, self._stop = os.pipe()
        self._wires = []
        self.connect(interface, tap_fd)

    def endpoint(self, interface=0):
        return self.info["endpoints"][interface]

    def connect(self, interface=0, tap_fd=None):
        endpoint = self.endpoint(interface)
        flags = IFF_VNET_HDR if self.vnet_hdr else 0
        inner = f"eth{interface}"
        host_fd = open_tap(self.host.net_path, endpoint["host_interface"], flags) if tap_fd is None else tap_fd
        guest_fd = open_tap(self.net_path, inner)
        self.ip("link", "set", inner, "address", endpoint["mac"])
        self.ip("link", "set", inner, "mtu", str(self.info["vmm"]["interfaces"][interface]["mtu"]))
        thread = threading.Thread(target=self._carry, args=(host_fd, guest_fd), daemon=True)
        thread.start()
        self._wires.append((thread, host_fd, guest_fd))

    def up(self, inner="eth0"):
        self.ip("link", "set", inner, "up")

    def _carry(self, host_fd, guest_fd):
        while True:
            readable, _, _ = select.select([host_fd, guest_fd, self._stopped], [], [])
            if self._stopped in readable:
                return
            for fd, other, to_host in ((host_fd, guest_fd, False), (guest_fd, host_fd, True)):
                if fd not in readable:
                    continue
                try:
                    frame = os.read(fd, 70000)
                    if self.vnet_hdr:
                        frame = bytes(VNET_HEADER) + frame if to_host else frame[VNET_HEADER:]
                    os.write(other, frame)
                except OSError:
                    pass

    def disconnect(self):
        """The VMM ends; the kernel of the guest with it."""
        os.write(self._stop, b"x")
        for thread, host_fd, guest_fd in self._wires:
            thread.join()
            os.close(host_fd)
            os.close(guest_fd)
        self._wires = []
        os.close(self._stop)
        os.close(self._stopped)

    def close(self):
        if self._wires:
            self.disconnect()
        super().close()

    # What the guest sends and hears, byte by byte

    def wire(self, inner="eth0"):
        """A packet socket in the guest."""
        def work():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            sock.bind((inner, 0))
            return sock

        return self.inside(work)
