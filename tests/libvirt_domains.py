# SPDX-License-Identifier: Apache-2.0

"""libvirt's Python binding, and domains without a libvirtd.

libvirt's own test driver has the domains: the library is the real one.
"""

import importlib
import pathlib
import socket
import sys
import uuid

import fixtures

from tests import base
from tests import churn

#: Where tools/peers.sh puts the binding, which needs a compiler.
_BINDING = base.CHECKOUT / '.venv' / 'libvirt'

_DOMAIN = '''\
<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
  <name>%s</name>
  <uuid>%s</uuid>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:ports><nova:port uuid='%s'/></nova:ports>
    </nova:instance>
  </metadata>
  <memory>1</memory>
  <os><type>hvm</type></os>
  <devices>
    <interface type='ethernet'>
      <mac address='%s'/>
      <target dev='%s' managed='no'/>
      <model type='virtio'/>
      <driver queues='%d'/>%s
    </interface>
  </devices>
  <test:runstate>%d</test:runstate>
</domain>
'''
_RUNNING, _SHUT_OFF = 1, 5


def _bindings():
    return list(_BINDING.glob('lib/python%d.%d/site-packages/libvirt.py'
                              % sys.version_info[:2]))


def missing():
    """Return what keeps us from having it, None if nothing does."""
    if not _bindings():
        return 'needs libvirt-python in %s: run tools/peers.sh' % _BINDING
    return None


def binding():
    """Return the directory that "import libvirt" must look into."""
    return str(_bindings()[0].parent)


def import_libvirt():
    """Return the module "libvirt"."""
    sys.path.append(binding())
    try:
        return importlib.import_module('libvirt')
    finally:
        sys.path.pop()


class Domains(fixtures.Fixture):
    """What libvirt answers in this process, and in those it starts."""

    def _setUp(self):
        self._file = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'node.xml'
        self.define()
        self.uri = 'test://%s' % self._file
        self.useFixture(fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', self.uri))
        self.useFixture(fixtures.PythonPathEntry(binding()))
        self.useFixture(fixtures.EnvironmentVariable('PYTHONPATH', binding()))

    def define(self, *nics, vif_id='', limit=''):
        """Have a domain for each NIC, and no others.

        :param nics: name of the TAP, guest's MAC, whether it runs, queues
        :param vif_id: of the port, as Nova writes it down
        :param limit: of bandwidth, as XML
        """
        churn.replace(self._file, '<node>%s</node>' % ''.join(
            _DOMAIN % (self.of(tap), self.instance_of(tap), vif_id, mac, tap,
                       queues, limit, _RUNNING if active else _SHUT_OFF)
            for tap, mac, active, queues in nics))

    def of(self, tap):
        """Return what the domain with this TAP is called."""
        return 'guest-of-' + tap

    def instance_of(self, tap):
        """Return the UUID of the domain with this TAP."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, tap))

    def end(self):
        """Have libvirt answer no more."""
        self._file.unlink()


class Silent(fixtures.Fixture):
    """A libvirt that accepts connections and never says a word."""

    def _setUp(self):
        path = self.useFixture(fixtures.TempDir()).path + '/sock'
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        # The kernel accepts so many by itself.
        listener.listen(100)
        self.useFixture(fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', 'qemu+unix:///system?socket=' + path))


class NoDomains:
    """There is no libvirt, as in the short form: it answers nothing."""

    uri = ''

    def __init__(self, test):
        self._test = test

    def define(self, *nics, vif_id='', limit=''):
        """Leave out a test of what libvirt answers."""
        self._test.only_in_full()

    def of(self, tap):
        return None

    def instance_of(self, tap):
        return None

    def end(self):
        pass
