# SPDX-License-Identifier: Apache-2.0

"""What network managers would take off bridges, and what is said of it.

Test strategy: where a manager decides for itself, it decides what is right:
the real systemd-networkd has the same files as the audit. ifupdown2 and
NetworkManager are asked, so the real ones answer.
"""

import pathlib

import fixtures

from tests import base
from tests.functional import test_audit
from tests import network_configuration
from tests import patience
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.host import network_managers

_ETC = base.CHECKOUT / 'etc'
_OURS = (_ETC / 'systemd/network/00-tapmac.network').read_text()
_ALL = '[Match]\nName=*\n'
_KEEPS = '[Network]\nKeepMaster=yes\n'


def matching(*lines):
    """Return the files that ask this of a link, with nothing else in them."""
    return {'a.network': '[Match]\n%s\n[Network]\nLinkLocalAddressing=no\n'
            % '\n'.join(lines)}


#: Files of networkd, and whether it takes a guest off its bridge by them.
_FILES = (
    ({}, False),
    (matching('Name=*'), True),
    (matching('Name=tap*'), True),
    (matching('Name=tap????????-??'), True),
    (matching('Kind=tun'), True),
    (matching('Type=ether'), True),
    (matching('Driver=tun'), True),
    (matching('Name=eth* en*'), False),
    (matching('Name=tap0'), False),
    (matching('Name=!eth* en*'), True),
    (matching('Name=!tap* eth*'), False),
    (matching('Name=tap*', 'Kind=bridge'), False),
    (matching('Name=eth*', 'Name=tap*'), True),
    (matching('Name=tap*', 'Name=', 'Name=eth*'), False),
    (matching('Name=eth* \\', '  tap*'), True),
    (matching('# Name=eth*', 'NoSuchKey=1', ' Name = tap* '), True),
    (matching('Path=pci-*'), False),
    (matching('Path=*'), False),
    (matching('Path=!pci-*'), True),
    (matching('SSID=!home', 'Name=tap*'), True),
    (matching('Property=ID_BUS=pci'), False),
    (matching('MACAddress=' + base.TAP_MAC.upper()), True),
    (matching('MACAddress=02:00:00:00:00:01 %s' % base.TAP_MAC), True),
    (matching('MACAddress=02:00:00:00:00:01'), False),
    (matching('PermanentMACAddress=' + base.TAP_MAC), False),
    (matching('Host=no-such-host', 'Name=*'), False),
    (matching('Host=!no-such-host'), True),
    (matching(), False),
    ({'a.network': _ALL + _KEEPS}, False),
    ({'a.network': _ALL + '[Link]\nUnmanaged=true\n'}, False),
    ({'a.network': _ALL + '[Network]\nKeepMaster=yes\nKeepMaster=0\n'}, True),
    ({'00-tapmac.network': _OURS, 'z.network': _ALL}, False),
    ({'00-tapmac.network': _OURS, '00-all.network': _ALL}, True),
    ({'/etc/systemd/network/z.network': _ALL,
      '00-tapmac.network': _OURS}, False),
    ({'/usr/lib/systemd/network/a.network': _ALL}, True),
    ({'/usr/lib/systemd/network/a.network': _ALL,
      '/etc/systemd/network/a.network': ''}, False),
    ({'/usr/lib/systemd/network/a.network': _ALL,
      '/etc/systemd/network/a.network': None}, False),
    ({'a.network': _ALL, 'a.network.d/keep.conf': _KEEPS,
      '/etc/systemd/network/a.network.d/keep.conf': None}, True),
    ({'a.network': _ALL, 'a.network.d/1.conf': _KEEPS,
      'a.network.d/2.conf': '[Network]\nKeepMaster=no\n'}, True),
    ({'a.network': _ALL,
      '/etc/systemd/network/a.network.d/keep.conf': _KEEPS}, False),
    ({'a.network': '[Match]\nName=eth*\n',
      'a.network.d/all.conf': _ALL}, True),
)


@base.needs_real_root(base.SEVERAL_USERS)
@base.too_slow_emulated('networkd that starts again and again')
class NetworkdTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        missing = network_configuration.missing_networkd()
        if missing:
            self.cannot_run(missing)
        self.host.add('witness', 'veth', peer='other')
        self.number = 0

    def files(self, files):
        """Return these files, and one by which networkd tells when it ends."""
        self.number += 1
        return dict(files, **{
            '0-witness.network':
            '[Match]\nName=witness\n[Network]\nLinkLocalAddressing=no\n'
            'Address=192.0.2.%d/32\nConfigureWithoutCarrier=yes\n'
            % self.number})

    def wait(self):
        patience.wait_until(
            lambda: '192.0.2.%d/32' % self.number in self.host.addresses(
                'witness'), 'networkd does not get to its last link')

    def audit(self):
        return [each for each in audit.audit_managers(
            inventory.read(self.options), self.options)
            if each.code == 'TM309']

    def test_says_what_networkd_does(self):
        self.plug()
        with network_configuration.networkd(self.files({})) as networkd:
            self.patch(link_files, '_DIRECTORIES', [
                networkd.path(each) for each in link_files._DIRECTORIES])
            for files, takes in _FILES:
                networkd.restart(self.files(files))
                self.wait()
                found = self.audit()
                self.assertEqual(
                    (takes, takes),
                    (self.host.master(base.TAP) is None, bool(found)), files)
                self.plug()

    def test_uplinks(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.host.add('eth1', 'veth', peer='wire')
        self.host.set('eth1', state='up')
        with network_configuration.networkd(self.files({})) as networkd:
            self.patch(link_files, '_DIRECTORIES', [
                networkd.path(each) for each in link_files._DIRECTORIES])
            card = '[Match]\nName=eth1\n[Network]\nLinkLocalAddressing=no\n'
            self.plug()
            for text, takes in (
                    (card, True), (card + 'KeepMaster=yes\n', False),
                    (card.replace('Name=eth1', 'Kind=veth'), True),
                    ('[Match]\nName=eth1\n[Link]\nUnmanaged=yes\n', False)):
                networkd.restart(self.files({'c.network': text}))
                self.wait()
                found = self.audit()
                self.assertEqual(
                    (takes, takes),
                    (self.host.master('eth1') is None, bool(found)), text)
                for each in found:
                    self.assertIn('eth1, the uplink of br100', each.evidence)
                    self.assertIn('KeepMaster=yes', each.remedy)
                    self.assertNotIn('tap', each.evidence)
                self.plug()


@base.needs_real_root(base.SEVERAL_USERS)
@base.too_slow_emulated('programs in Python that are asked')
class AuditTest(test_audit.AuditTestCase):
    """What is asked of others; and the words."""

    def test_ifupdown2_with_an_uplink_that_it_lacks(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth7'})
        right = (_ETC / 'network/interfaces.d/br100').read_text()
        self.have_ifupdown2(right)
        self.assert_finds('TM310', base.BRIDGE, 'takes eth7 off')
        pathlib.Path('/etc/network/interfaces').write_text(
            right.replace('bridge-ports eth1', 'bridge_ports eth1 eth7'))
        self.assert_clean()

    def test_ifupdown2_that_fails(self):
        self.have_ifupdown2('')
        self.patch(network_managers, '_said', lambda *_: '{')
        self.assert_finds('TM310', 'this host', 'could not be seen', 'ifquery')

    def test_network_manager(self):
        self.have_network_manager(
            (_ETC / 'NetworkManager/conf.d/tapmac.conf').read_text())
        self.plug_clean()
        path = pathlib.Path('/etc/NetworkManager/conf.d/tapmac.conf')
        path.write_text('[keyfile]\nunmanaged-devices=interface-name:virbr*\n')
        self.assert_finds('TM311', 'NetworkManager', base.TAP, 'tapmac.conf',
                          'systemctl restart NetworkManager')


_TAPS, _TUN = 'match-device=interface-name:tap*\n', 'match-device=type:tun\n'
_LEAVES, _MANAGES = 'managed=0\n', 'managed=1\n'
#: What NetworkManager has in a file, and whether it leaves a TAP alone by it.
_CONFIGURATIONS = (
    ('', False),
    ((_ETC / 'NetworkManager/conf.d/tapmac.conf').read_text(), True),
    ('[keyfile]\nunmanaged-devices=interface-name:virbr*\n', False),
    ('[keyfile]\nunmanaged-devices=%s\n' % base.TAP, True),
    ('[keyfile]\nunmanaged-devices=interface-name:=%s\n' % base.TAP, True),
    ('[keyfile]\nunmanaged-devices=interface-name:=tap*\n', False),
    ('[keyfile]\nunmanaged-devices=interface-name:~tap*\n', True),
    ('[keyfile]\nunmanaged-devices=type:tun\n', True),
    ('[keyfile]\nunmanaged-devices=driver:tun\n', True),
    # Which is the one that a card has for good.
    ('[keyfile]\nunmanaged-devices=mac:%s\n' % base.TAP_MAC, False),
    ('[keyfile]\nunmanaged-devices=*\n', True),
    ('[keyfile]\nunmanaged-devices=*,except:interface-name:tap*\n', False),
    ('[keyfile]\nunmanaged-devices=except:type:ethernet\n', True),
    ('[device]\nmanaged=false\n', True),
    ('[device-a]\n%s%s' % (_TAPS, _LEAVES), True),
    ('[device-a]\n%s%s' % (_TAPS, _MANAGES), False),
    ('[device-a]\n%s[device-b]\n%s%s' % (_TAPS, _TUN, _LEAVES), True),
    ('[device-a]\n%s%s[device-b]\n%s%s' % (
        _TAPS, _MANAGES, _TUN, _LEAVES), False),
    ('[device-b]\n%s%s[device-a]\n%s%s' % (
        _TUN, _LEAVES, _TAPS, _MANAGES), True),
)


@base.needs_real_root(base.SEVERAL_USERS)
@base.too_slow_emulated('NetworkManager that starts again and again')
class NetworkManagerTest(base.FunctionalTestCase):

    def test_says_what_network_manager_does(self):
        self.only_in_full()
        missing = network_configuration.missing_network_manager()
        if missing:
            self.cannot_run(missing)
        self.plug()
        manager = network_configuration.NetworkManager({})
        self.addCleanup(manager.close)
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (directory / 'NetworkManager').touch(0o755)
        self.patch(network_managers, '_PATH', str(directory))
        self.patch(network_managers, '_said',
                   lambda *_: manager.configuration())

        def restart(text):
            manager.restart({'conf.d/tapmac.conf': text})
            patience.wait_until(
                lambda: manager.has_started() and base.TAP in manager.states(),
                'NetworkManager does not start')
        for text, leaves in _CONFIGURATIONS:
            if 'device-' in text:
                # What it manages once it manages again, by such a section.
                restart('[keyfile]\nunmanaged-devices=*\n')
            restart(text)
            found = audit.audit_managers(
                inventory.read(self.options), self.options)
            names = [each.evidence for each in found if each.code == 'TM311'
                     and base.TAP in each.evidence]
            self.assertEqual(
                (leaves, leaves),
                (manager.states()[base.TAP] == 'unmanaged', not names), text)
