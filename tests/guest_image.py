# SPDX-License-Identifier: Apache-2.0

"""What a guest boots: a distribution's kernel, and busybox in its memory."""

import os
import pathlib
import subprocess

import fixtures

from tests import base

#: Where tools/guest_image.sh puts what it is made of.
UNPACKED = base.CHECKOUT / '.venv' / 'guest' / 'root'


def missing():
    """Return what keeps us from making one, None if nothing does."""
    if not list(UNPACKED.rglob('bin/busybox')):
        return 'needs a kernel and busybox for guests: run tools/peers.sh'
    return None


class GuestImage(fixtures.Fixture):
    """A kernel and its initial file system.

    :ivar kernel: path
    :ivar initrd: path
    """

    def _setUp(self):
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        os.chmod(directory, 0o755)
        subprocess.run([base.CHECKOUT / 'tools/guest_image.sh', directory],
                       stdin=subprocess.DEVNULL, check=True)
        self.kernel = directory / 'kernel'
        self.initrd = directory / 'initrd'
