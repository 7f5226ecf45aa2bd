# SPDX-License-Identifier: Apache-2.0

"""nova-compute starts on a host with guests, one of them on a wrong bridge.

It plugs every guest of the host when it starts, and what plug raises there
ends it: all guests of the host would be out of reach for the sake of one.
"""

import contextlib
import pathlib
import sqlite3
import sys

import fixtures
from testtools import content

from tests import base
from tests import hosts
from tests import nova_service

# A privsep-helper whose daemon raises what ours only logs.
_UNPROTECTED_HELPER = """
from oslo_privsep import daemon

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import port


def error(message, device, *values):
    raise exception.VerifyFailed(
        device=device, differences=message % (device, *values))


port.LOG.error = error
daemon.helper_main()
"""


def to_nova(vif):
    """Return the VIF as Nova keeps it when Neutron has bound a port."""
    return {'id': vif.id, 'address': vif.address, 'devname': vif.vif_name,
            'type': 'tapmac', 'active': True, 'network': {
                'id': '5d6a7b8c-0000-4000-8000-000000000000', 'label': 'demo',
                'bridge': vif.bridge_name, 'meta': {'mtu': vif.network.mtu}}}


class Nova33Test(base.FunctionalTestCase):
    """Under Eventlet."""

    NOVA = '33'
    NEEDS_PYTHON = (3, 10)

    def setUp(self):
        super().setUp()
        self.only_in_full()
        self.venv = base.CHECKOUT / '.venv' / ('nova-' + self.NOVA)
        if not (self.venv / 'bin' / 'python').exists():
            self.cannot_run(self.how_to_get_nova())
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        # Nova starts with the oldest guest: the last one comes after the
        # wrong one.
        self.vifs = [base.numbered_vif(number) for number in (1, 2, 3)]
        self.right, self.wrong, self.down = [
            vif.vif_name for vif in self.vifs]
        self.guests = [self.boot(vif) for vif in self.vifs]
        other = self.host.add('br101', 'bridge')
        self.host.set(self.wrong, master=other.index)
        self.host.set(self.down, state='down')

    def how_to_get_nova(self):
        if sys.version_info < self.NEEDS_PYTHON:
            return 'Nova %s needs Python %d.%d or newer' % (
                self.NOVA, *self.NEEDS_PYTHON)
        return 'needs .venv/nova-%s: run tools/peers.sh' % self.NOVA

    def boot(self, vif):
        """Plug a VIF and hold its TAP, as a guest does."""
        self.plug(vif)
        guest = hosts.Guest(vif.vif_name, vif.address)
        self.addCleanup(guest.close)
        return guest

    def start_nova_compute(self, helper=None):
        """Start nova-compute in this network namespace, and end it.

        :returns: exit status, whether it came so far as to work, and the log
        """
        service = nova_service.NovaCompute(
            self.directory, self.venv / 'bin' / 'python',
            [{'uuid': vif.id, 'name': vif.vif_name, 'vifs': [to_nova(vif)]}
             for vif in self.vifs], helper=helper)
        status = service.end()
        self.addDetail('nova-compute.log', content.text_content(service.log))
        self.addDetail('stderr', content.text_content(service.stderr))
        return status, service.started, service.log

    def guest_states(self):
        """Return what Nova thinks of each guest, by the name of its TAP."""
        database = sqlite3.connect(self.directory / 'nova.sqlite')
        with contextlib.closing(database):
            return dict(database.execute(
                'SELECT display_name, vm_state FROM instances'))

    def assert_guests_live(self):
        """Expect that no guest lost its NIC, or its peer on the bridge."""
        right, wrong, down = self.guests
        self.host.wait_until_forwarding(self.down)
        wrong.send(hosts.BROADCAST, b'still here')
        for sender, receiver in ((right, down), (down, right)):
            sender.send(receiver.mac, b'hello')
            self.assertTrue(receiver.receive(b'hello'))

    def test_starts_and_logs_the_remedy(self):
        right, wrong = map(self.host.link, (self.right, self.wrong))
        status, started, log = self.start_nova_compute()
        self.assertEqual((0, True), (status, started))
        self.assertIn('Starting compute node (version %s.' % self.NOVA, log)
        errors = [line for line in log.splitlines()
                  if ' ERROR vif_plug_tapmac.' in line]
        self.assertEqual(1, len(errors), errors)
        for words in ('%s is used by a guest, and wrong: ' % self.wrong,
                      'it is on br101 and should be on %s' % base.BRIDGE,
                      'Remedy: hard reboot the instance'):
            self.assertIn(words, errors[0])
        self.assertEqual({self.right: 'active', self.wrong: 'active',
                          self.down: 'active'}, self.guest_states())
        self.assertEqual(right, self.host.link(self.right))
        self.assertEqual(wrong, self.host.link(self.wrong))
        self.assert_finished(self.down, mac='fe:16:3e:00:00:03')
        self.assert_guests_live()

    def test_would_not_start_if_plug_raised(self):
        # Without this, the other test might never have plugged at all. The
        # exit status tells nothing: Nova 33 drops what its launcher returns.
        helper = self.directory / 'helper.py'
        helper.write_text(_UNPROTECTED_HELPER)
        _, started, log = self.start_nova_compute(
            '%s %s' % (self.venv / 'bin' / 'python', helper))
        self.assertFalse(started)
        for words in ('InternalError: Failure running os_vif plugin plug ',
                      '%s is used by a guest, and wrong: ' % self.wrong):
            self.assertIn(words, log)
        self.assertFalse(self.host.link(self.down).up)


class Nova34Test(Nova33Test):
    """With native threads."""

    NOVA = '34'
    NEEDS_PYTHON = (3, 11)
