# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages of those that moat is measured beside: unpacked aside, so that nothing is installed and no service
starts."""

import glob
import os
import shutil
import subprocess

from spaces import execute, note


def fetch(directory, name, packages):
    """Into DIRECTORY/NAME, before the bench shuts itself off from the network. Without them nothing else is missing."""
    root = os.path.join(directory, name)
    os.mkdir(root)
    try:
        subprocess.run(["apt-get", "download", "-q", *packages], cwd=root, capture_output=True, timeout=120,
                       check=True)
    except (OSError, subprocess.SubprocessError) as error:
        note(f"the packages for \"{name}\" can't be had: {error}")
        shutil.rmtree(root)


class Packages:
    """What fetch() has put there, unpacked."""

    def __init__(self, directory, name):
        self.root = os.path.join(directory, name)
        self.there = os.path.isdir(self.root)
        self.env = dict(os.environ)
        if not self.there:
            return
        for package in glob.glob(os.path.join(self.root, "*.deb")):
            execute(["dpkg-deb", "-x", package, self.root])
        self.libraries = glob.glob(os.path.join(self.root, "usr/lib/*-linux-gnu*"))
        self.env["LD_LIBRARY_PATH"] = ":".join(self.libraries)

    def path(self, name):
        return os.path.join(self.root, name)
