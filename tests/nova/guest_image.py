# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""What a guest boots: a distribution's kernel, and busybox in its memory."""

import os
import pathlib
import shutil
import subprocess

import fixtures

from tests import base

_UNPACKED = base.CHECKOUT / '.venv' / 'guest' / 'root'
_INIT = pathlib.Path(__file__).parent / 'guest_init.sh'
#: What a guest's NIC and its power button need, unless the kernel has it built
#: in.
_MODULES = ('drivers/virtio/*', 'drivers/net/virtio_net',
            'drivers/net/net_failover', 'net/core/failover',
            'drivers/acpi/button', 'drivers/input/evdev')


def missing():
    """Return what keeps us from making one, None if nothing does."""
    if shutil.which('busybox') is None or not list(_kernels()):
        return 'needs busybox and a kernel for guests: run tools/peers.sh'
    return None


def _kernels():
    return _UNPACKED.glob('boot/vmlinuz-*')


class GuestImage(fixtures.Fixture):
    """A kernel and its initial file system.

    :ivar kernel: path
    :ivar initrd: path
    """

    def _setUp(self):
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.kernel, = _kernels()
        root = directory / 'root'
        (root / 'bin').mkdir(parents=True)
        shutil.copy(shutil.which('busybox'), root / 'bin')
        shutil.copy(_INIT, root / 'init')
        (root / 'init').chmod(0o755)
        for name in _MODULES:
            for module in _UNPACKED.glob('lib/modules/*/kernel/%s.ko' % name):
                copy = root / module.relative_to(_UNPACKED)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(module, copy)
        self.initrd = directory / 'initrd'
        names = '\n'.join(str(path.relative_to(root))
                          for path in sorted(root.rglob('*')))
        with open(self.initrd, 'wb') as initrd:
            subprocess.run(['busybox', 'cpio', '-o', '-H', 'newc'], cwd=root,
                           input=names.encode(), stdout=initrd,
                           stderr=subprocess.DEVNULL, check=True)
        self.initrd.chmod(0o644)
        os.chmod(directory, 0o755)
