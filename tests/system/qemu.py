# SPDX-License-Identifier: GPL-2.0-or-later
"""Real virtual machines: Debian's kernel under QEMU, with busybox around it. The image is made here, of packages."""

import glob
import os
import re
import select
import shutil
import stat
import subprocess
import tempfile
import time

from wait import PATIENCE

MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover", "net_failover",
           "virtio_net"]

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /etc /tmp /var/lib /www /sbin /usr/bin
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in %s; do insmod /modules/$module.ko; done
ip link set lo up
echo "the page of the machine" > /www/index.html
stty -echo -onlcr < /dev/ttyS0
echo VM-IS-UP > /dev/ttyS0
exec setsid sh -c 'exec sh < /dev/ttyS0 > /dev/ttyS0 2>&1'
"""

DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip address flush dev $interface scope global
ip address add $ip/$mask dev $interface
ip link set $interface mtu ${mtu:-1500}
[ -z "$router" ] || ip route replace default via $router
for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
hostname $hostname
"""

DHCP6_SCRIPT = """#!/bin/sh
[ "$reason" = BOUND6 ] && ip -6 address add $new_ip6_address/128 dev $interface
exit 0
"""


class Missing(Exception):
    """Why there can be no machine here."""


def _kernel_package():
    """The newest of Debian's kernels for clouds, of its stable line."""
    listed = subprocess.run(["apt-cache", "search", "--names-only", r"^linux-image-6\.1\.[0-9.-]*-cloud-amd64$"],
                            capture_output=True, text=True, check=False).stdout.split("\n")
    names = [line.split()[0] for line in listed if line.strip()]
    if not names:
        raise Missing("apt knows no linux-image-6.1.*-cloud-amd64")
    return max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def _kernel(directory):
    """(kernel, folder of modules). MOAT_TEST_KERNEL names a tree where a package was unpacked already."""
    tree = os.environ.get("MOAT_TEST_KERNEL")
    if not tree:
        tree = os.path.join(directory, "tree")
        name = _kernel_package()
        fetched = subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=directory,
                                 capture_output=True, text=True, timeout=300, check=False)
        packages = glob.glob(os.path.join(directory, "*.deb"))
        if not packages:
            raise Missing(f"{name} can't be downloaded: {fetched.stderr.strip()[-200:]}")
        subprocess.run(["dpkg-deb", "-x", packages[0], tree], check=True)
        os.unlink(packages[0])
    kernels = glob.glob(os.path.join(tree, "boot", "vmlinuz-*"))
    if not kernels:
        raise Missing(f"no kernel in {tree}")
    return kernels[0], os.path.join(tree, "lib", "modules", os.path.basename(kernels[0]).removeprefix("vmlinuz-"))


class _Archive:
    """A cpio archive in the form that a kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self._data = bytearray()
        self._inode = 0
        self._folders = set()

    def _add(self, name, mode, content=b""):
        self._inode += 1
        fields = [self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        self._data += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self._data += bytes(-len(self._data) % 4)
        self._data += content
        self._data += bytes(-len(self._data) % 4)

    def file(self, name, content, mode=0o755):
        parts = name.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            folder = "/".join(parts[:end])
            if folder not in self._folders:
                self._folders.add(folder)
                self._add(folder, stat.S_IFDIR | 0o755)
        self._add(name, stat.S_IFREG | mode, content if isinstance(content, bytes) else content.encode())

    def copy(self, name, path):
        with open(path, "rb") as file:
            self.file(name, file.read())

    def program(self, path):
        """A program with the libraries that it needs."""
        self.copy(path.lstrip("/"), path)
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout):
            self.copy(library.lstrip("/"), library)

    def write(self, path):
        self._add("TRAILER!!!", 0)
        with open(path, "wb") as file:
            file.write(self._data)


class Image:
    """Kernel and initramfs, made once."""

    def __init__(self):
        for tool in ("qemu-system-x86_64", "busybox", "dpkg-deb"):
            if not shutil.which(tool):
                raise Missing(f"{tool} is not installed")
        self.directory = tempfile.mkdtemp(prefix="mt-vm-")
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self):
        self.kernel, modules = _kernel(self.directory)
        self.initrd = os.path.join(self.directory, "initrd")
        archive = _Archive()
        busybox = shutil.which("busybox")
        if subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode == 0:
            raise Missing("busybox is not the static one (busybox-static)")
        archive.copy("bin/busybox", busybox)
        archive.file("init", INIT % " ".join(MODULES))
        archive.file("dhcp", DHCP_SCRIPT)
        archive.file("dhcp6", DHCP6_SCRIPT)
        found = {os.path.basename(path).removesuffix(".ko"): path for path in glob.glob(f"{modules}/**/*.ko", recursive=True)}
        for name in MODULES:
            if name not in found:
                raise Missing(f"the kernel has no module {name}")
            archive.copy(f"modules/{name}.ko", found[name])
        self.dhclient = shutil.which("dhclient")
        if self.dhclient:
            archive.program(self.dhclient)
        archive.write(self.initrd)
        for path in (self.directory, self.kernel, self.initrd):
            os.chmod(path, 0o755)

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)


class VirtualMachine:
    """One that runs; its shell is on the serial line."""

    def __init__(self, host, image, mac, netdev, append="", user=None, pass_fds=()):
        self.name = mac
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "192", "-smp",
                "1", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-kernel", image.kernel, "-initrd",
                image.initrd, "-append", f"console=ttyS0 quiet panic=-1 {append}", "-netdev", f"tap,id=n0,{netdev}", "-device",
                f"virtio-net-pci,netdev=n0,mac={mac},romfile=", "-serial", "stdio"]
        if user:
            argv = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--", *argv]
        self.process = host.popen(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  pass_fds=pass_fds)
        self.transcript = ""
        self._number = 0
        try:
            self._until("VM-IS-UP", 60)
        except BaseException:
            self.close()
            raise

    def _until(self, marker, timeout):
        deadline = time.monotonic() + timeout * PATIENCE
        seen = ""
        fd = self.process.stdout.fileno()
        while not re.search(marker, seen):
            if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"the machine did not say {marker!r} within {timeout} s:\n{self.transcript}")
            data = os.read(fd, 65536)
            if not data:
                raise AssertionError(f"the machine ended:\n{self.transcript}")
            text = data.decode(errors="replace").replace("\r", "")
            seen += text
            self.transcript += text
        return seen

    def run(self, command, check=True, timeout=30):
        """A command in the machine; what it prints."""
        self._number += 1
        mark = f"ENDED-{self._number}"
        self.process.stdin.write(f"{command}; R=$?; echo; echo {mark}:$R:\n".encode())
        self.process.stdin.flush()
        self.transcript += f"$ {command}\n"
        seen = self._until(mark + r":\d+:", timeout)
        out, _, rest = seen.partition(mark + ":")
        out = re.sub(r"^(/ # )+", "", out.strip(), flags=re.MULTILINE).strip()
        if check:
            assert rest.split(":")[0] == "0", f"{command}: {rest}\n{out}\n{self.transcript[-3000:]}"
        return out

    def succeeds(self, command):
        try:
            self.run(command)
        except AssertionError:
            return False
        return True

    def ping(self, address, count=1):
        return self.succeeds(f"ping -c {count} -W 3 {address} > /dev/null")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
