# SPDX-License-Identifier: Apache-2.0

"""What is wanted, of a VIF and the configuration: a value or an error."""

import dataclasses
import pathlib
import re
import time

import fixtures
from hypothesis import given
from hypothesis import strategies as st
from os_vif.objects import vif as vif_objects
from oslo_config import cfg
import testtools

from tests import base
from vif_plug_tapmac import exception
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import from_vif
from vif_plug_tapmac.wanted.limits import SERVICE_MAX
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted.uplinks import Uplinks

GOOD = base.make_port()

#: For each field, what it must not be.
BAD = {
    'vif_id': [None, '', 7, 'x', base.VIF_ID.upper(), base.VIF_ID + '\n',
               base.VIF_ID.replace('-', ''), [base.VIF_ID]],
    'name': [None, '', 7, ['tap0'], b'tap0', 'a' * 16, 'lo/', 'default'],
    'bridge': [None, '', 7, ['br0'], b'br0', 'a' * 16, '../br', 'all',
               GOOD.name],
    'guest_mac': [None, '', 7, base.GUEST_MAC.upper(), b'fa:16:3e:28:64:c2',
                  '01:00:00:00:00:00', '00:00:00:00:00:00', 'fa:16'],
    'mtu': [67, 65522, -1, 1500.0, '1500', True],
    'owner': [None, -1, 2 ** 32 - 1, 'root', 0.0, False],
    'create_tap': [None, 0, 1, 'no'],
    'multi_queue': [None, 0, 1, 'no'],
    'create_bridge': [None, 0, 1, 'no'],
    'link_group': [None, 0, -1, 2 ** 31, '1', True, GOOD.bridge_group],
    'bridge_group': [None, 0, -1, 2 ** 31, '1', True, GOOD.link_group],
    'uplink': ['', 7, ['eth1'], b'eth1', 'a' * 128, 'eth 1', 'all', GOOD.name,
               GOOD.bridge],
    'anti_spoofing': [None, '', 'ip', 'MAC', 0, True, ['mac'], b'mac'],
    'arriving_guests': [None, '', 'none', 'LOCK', 0, True, ['lock']],
    'port_isolated': [None, 0, 1, 'no'],
    'port_flood_unicast': [None, 0, 1, 'no'],
    'port_flood_multicast': [None, 0, 1, 'no'],
    'port_flood_broadcast': [None, 0, 1, 'no'],
    'port_hairpin': [None, 0, 1, 'no'],
    'host_shield': [None, 0, 1, 'no'],
    'filtered_group': [None, 0, -1, 2 ** 31, '1', True, GOOD.link_group,
                       GOOD.bridge_group],
    'firewall': [None, '', 'iptables', 'AGENT', 0, True, ['agent']],
    'agent_group': [None, 0, -1, 2 ** 31, '1', True, GOOD.link_group,
                    GOOD.bridge_group, GOOD.filtered_group],
    'addresses': ['', 7, '192.0.2.1', ['192.0.2.1'], (None,), (7,),
                  ('192.0.2.1/24',), ('2001:DB8::1',), ('224.0.0.1',),
                  ('0.0.0.0',), ('::ffff:192.0.2.1',),
                  ('192.0.2.1',) * 1025],
}


class FieldsTest(base.TestCase):
    """What the privileged side checks, whatever the caller says."""

    def test_round_trip(self):
        for value in (GOOD, base.make_port(mtu=None, uplink='eth1.200'),
                      TapIdentity(base.VIF_ID, base.TAP)):
            fields = value.to_fields()
            self.assertEqual(value, type(value).from_fields(fields))
            self.assertTrue(all(isinstance(field, (str, int, bool, type(None)))
                                for field in fields.values()))

    def test_every_field_has_bad_values(self):
        self.assertEqual({field.name for field in dataclasses.fields(GOOD)},
                         set(BAD))

    def test_bad_values(self):
        for field, values in BAD.items():
            for value in values:
                with testtools.ExpectedException(exception.InvalidVif):
                    TapPort.from_fields(
                        dict(GOOD.to_fields(), **{field: value}))

    def test_missing_and_extra_fields(self):
        for field in BAD:
            fields = GOOD.to_fields()
            del fields[field]
            self.assertRaises(exception.InvalidVif,
                              TapPort.from_fields, fields)
        for field in ('x', 7, None, ('name',)):
            self.assertRaises(exception.InvalidVif,
                              TapPort.from_fields,
                              {**GOOD.to_fields(), field: 1})
        for fields in (None, [], 'name', 7, list(GOOD.to_fields().items())):
            self.assertRaises(exception.InvalidVif,
                              TapPort.from_fields, fields)

    @given(st.dictionaries(st.sampled_from(sorted(BAD)), st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
        st.binary(), st.lists(st.integers()))))
    def test_anything_is_valid_or_invalid_vif(self, fields):
        try:
            TapPort.from_fields(dict(GOOD.to_fields(), **fields))
        except exception.InvalidVif:
            pass

    @given(st.text())
    def test_names_are_what_the_kernel_takes_literally(self, name):
        try:
            TapIdentity(base.VIF_ID, name)
        except exception.InvalidVif:
            return
        self.assertRegex(name, re.compile(r'\A[a-z0-9][a-z0-9_.-]{0,14}\Z',
                                          re.IGNORECASE | re.ASCII))
        self.assertNotIn(name, ('all', 'default'))

    @given(st.from_regex(r'\A[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}\Z').filter(
        lambda name: name not in ('all', 'default')))
    def test_good_names(self, name):
        self.assertEqual(name, TapIdentity(base.VIF_ID, name).name)

    def test_is_frozen(self):
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, GOOD,
                          'name', 'tap0')


class FromVifTest(base.TestCase):

    def test_vif(self):
        self.assertEqual(GOOD, from_vif.tap_port(base.make_vif(),
                                                 self.options))

    def test_options(self):
        self.configure(owner='7', multiqueue=True, create_bridge=False,
                       link_group=8, bridge_group=9, anti_spoofing='none',
                       arriving_guests='filter', port_isolated=True,
                       port_flood_unicast=False,
                       port_flood_multicast=False,
                       port_flood_broadcast=False, port_hairpin=True,
                       host_shield=True)
        self.assertEqual(
            base.make_port(owner=7, multi_queue=True, create_bridge=False,
                           link_group=8, bridge_group=9, anti_spoofing='none',
                           arriving_guests='filter', port_isolated=True,
                           port_flood_unicast=False,
                           port_flood_multicast=False,
                           port_flood_broadcast=False, port_hairpin=True,
                           host_shield=True),
            from_vif.tap_port(base.make_vif(), self.options))

    def test_no_network(self):
        for net in (None, base.UNSET):
            port = from_vif.tap_port(base.make_vif(network=net),
                                     self.options)
            self.assertIsNone(port.mtu)

    def test_no_network_and_no_bridge_name(self):
        self.assertRaises(
            exception.InvalidVif, from_vif.tap_port,
            base.make_vif(network=None, bridge_name=base.UNSET), self.options)

    def test_nova_name(self):
        self.assertEqual('tap1a2b3c4d-5e', names.nova_tap_name(base.VIF_ID))
        self.assertTrue(GOOD.has_nova_name)
        self.assertFalse(base.make_port(name='vnet0').has_nova_name)

    def test_every_other_class_is_refused(self):
        classes = [cls for cls in vars(vif_objects).values()
                   if isinstance(cls, type)
                   and issubclass(cls, vif_objects.VIFBase)
                   and cls is not vif_objects.VIFBridge]
        self.assertGreater(len(classes), 5)
        for cls in classes:
            for function in (
                    from_vif.tap_identity,
                    lambda vif: from_vif.tap_port(vif, self.options)):
                error = self.assertRaises(exception.InvalidVif, function,
                                          cls(id=base.VIF_ID))
                self.assertIn(cls.__name__, str(error))
                self.assertIn('VIFBridge', str(error))


class PrivilegedSideTest(base.TestCase):
    """What the other side has its own word on."""

    def test_same_configuration(self):
        from_config.require_same(base.make_port(), self.options)

    def test_other_configuration(self):
        for field, value in {'owner': 65534, 'create_bridge': False,
                             'link_group': 7, 'bridge_group': 8,
                             'anti_spoofing': 'none',
                             'arriving_guests': 'lock',
                             'port_isolated': True,
                             'port_flood_unicast': False,
                             'port_flood_multicast': False,
                             'port_flood_broadcast': False,
                             'port_hairpin': True,
                             'host_shield': True}.items():
            port = base.make_port(**{field: value})
            error = self.assertRaises(
                exception.InvalidConfig, from_config.require_same, port,
                self.options)
            for word in (field, str(value), 'helper_command', 'restart'):
                self.assertIn(word, str(error))

    def test_caller_may_know_better_about_queues(self):
        from_config.require_same(base.make_port(multi_queue=True),
                                 self.options)

    def service(self, *names):
        """Return what a service is called that reads these files."""
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in names:
            (directory / name).touch()
        files = [str(directory / name) for name in names]
        self.config.conf([], project='tapmac', default_config_files=files)
        return from_config.service(self.config.conf), ' '.join(files)

    def test_service_is_called_by_its_files(self):
        self.assertEqual(*self.service('nova.conf', 'nova-compute.conf'))
        self.assertEqual('no file', self.service()[0])
        self.assertEqual('no file', from_config.service(cfg.ConfigOpts()))

    def test_service_whose_files_can_be_in_no_comment(self):
        for paths in ('x' * SERVICE_MAX,), ('"',), ('a b',), ('\u00e4',):
            found = {self.service(*paths)[0] for _ in range(2)}
            self.assertEqual(2, len(found))
            for each in found:
                self.assertRegex(each, '^SHA-256 [0-9a-f]{64}$')
                self.assertLessEqual(len(each), SERVICE_MAX)

    def assert_allowed(self, patterns, *bridges):
        self.configure(allowed_bridges=patterns)
        limits = from_config.limits(self.options)
        for bridge in ('br100', 'br101', 'br1000', 'Br100', 'brmgmt'):
            port = base.make_port(bridge=bridge)
            if bridge in bridges:
                limits.require_bridge(port)
            else:
                error = self.assertRaises(exception.InvalidConfig,
                                          limits.require_bridge, port)
                for word in ('allowed_bridges', bridge, port.name):
                    self.assertIn(word, str(error))

    def test_all_bridges_by_default(self):
        self.assert_allowed(['*'], 'br100', 'br101', 'br1000', 'Br100',
                            'brmgmt')

    def test_allowed_bridges(self):
        self.assert_allowed([])
        self.assert_allowed(['br100'], 'br100')
        self.assert_allowed(['br10?'], 'br100', 'br101')
        self.assert_allowed(['br10[01]', 'brm*'], 'br100', 'br101', 'brmgmt')
        self.assert_allowed(['br[0-9]*'], 'br100', 'br101', 'br1000')

    def assert_uplink_refused(self, option, uplink, bridge='br100'):
        limits = from_config.limits(self.options)
        port = base.make_port(bridge=bridge, uplink=uplink)
        error = self.assertRaises(exception.InvalidConfig,
                                  limits.require_bridge, port)
        for word in (option, str(uplink), bridge):
            self.assertIn(word, str(error))

    def test_uplinks_of_the_configuration(self):
        self.configure(bridge_uplinks={'br100': 'eth1'})
        limits = from_config.limits(self.options)
        for bridge, uplink in (('br100', 'eth1'), ('br100-7', 'eth1.7'),
                               ('br200', None)):
            limits.require_bridge(base.make_port(bridge=bridge,
                                                 uplink=uplink))
        for bridge, uplink in (('br100', 'eth2'), ('br100', None),
                               ('br100-7', 'eth1'), ('br100-7', 'eth1.8')):
            self.assert_uplink_refused('bridge_uplinks', uplink, bridge)
        self.assert_uplink_refused('allowed_uplinks', 'eth1', 'br200')

    def test_uplinks_that_a_vif_may_name(self):
        self.configure(allowed_uplinks=['eth*', 'bond0'])
        limits = from_config.limits(self.options)
        for uplink in 'eth1', 'eth1.7', 'bond0':
            limits.require_bridge(base.make_port(uplink=uplink))
        for uplink in 'bond1', 'Eth1', 'lo':
            self.assert_uplink_refused('allowed_uplinks', uplink)


class UplinksTest(base.TestCase):

    def test_built_once_for_a_configuration(self):
        self.configure(bridge_uplinks={'br100': 'eth1'})
        first = from_config.uplinks(self.options)
        self.assertIs(first, from_config.uplinks(self.options))
        self.configure(bridge_uplinks={'br100': 'eth2'})
        self.assertEqual('eth2', from_config.uplinks(self.options).of('br100'))

    def test_takes_no_longer_with_many(self):
        uplinks = Uplinks({'br%d' % number: 'eth%d' % number
                           for number in range(100000)}, '{bridge}-{vlan}')
        uplinks.of('br7-1')
        start = time.process_time()
        for number in range(1000):
            self.assertEqual('eth99999.7', uplinks.of('br99999-7'))
            self.assertIsNone(uplinks.of('br100000-7'))
        self.assertLess(time.process_time() - start, 1)

    def test_vlan_first_and_nothing_between(self):
        self.assertEqual('eth1.20', Uplinks(
            {'br1': 'eth1'}, 'v{vlan}.{bridge}').of('v20.br1'))
        uplinks = Uplinks({'br12': 'eth12', 'br1': 'eth1'}, '{bridge}{vlan}')
        for bridge, uplink in (('br1234', 'eth12.34'), ('br13', 'eth1.3'),
                               ('br1', 'eth1'), ('br2', None)):
            self.assertEqual(uplink, uplinks.of(bridge), bridge)

    def test_of(self):
        uplinks = Uplinks({'br100': 'eth1', 'br100-9': 'eth9'},
                          '{bridge}-{vlan}')
        for bridge, uplink in (
                ('br100', 'eth1'), ('br100-1', 'eth1.1'),
                ('br100-4094', 'eth1.4094'), ('br100-9', 'eth9'),
                ('br100-9-7', 'eth9.7'), ('br100-4095', None),
                ('br100-0', None), ('br100-007', None), ('br100-', None),
                ('br100-1 ', None), ('br101', None), ('xbr100-1', None)):
            self.assertEqual(uplink, uplinks.of(bridge), bridge)

    def test_pattern_is_taken_as_it_is(self):
        uplinks = Uplinks({'br.1': 'eth1'}, '{bridge}.v{vlan}')
        for bridge, uplink in (('br.1.v7', 'eth1.7'), ('brx1.v7', None),
                               ('br.1xv7', None)):
            self.assertEqual(uplink, uplinks.of(bridge), bridge)


class AddressesTest(base.TestCase):
    """The fixed IPs of a VIF, where they matter."""

    def of(self, vif):
        return from_vif.tap_port(vif, self.options).addresses

    def test_in_their_order_and_canonical(self):
        self.configure(anti_spoofing='full')
        self.assertEqual(
            ('192.0.2.2', '2001:db8::1', '192.0.2.1'),
            self.of(base.make_vif(addresses=[
                '192.0.2.2', '2001:0DB8::1', '192.0.2.1', '192.0.2.2'])))

    def test_none_are_none(self):
        self.configure(anti_spoofing='full')
        for fields in {}, {'addresses': []}:
            self.assertEqual((), self.of(base.make_vif(**fields)))

    def test_what_no_port_has(self):
        self.configure(anti_spoofing='full')
        self.assertRaises(exception.InvalidVif, self.of,
                          base.make_vif(addresses=['224.0.0.1']))

    def test_where_they_do_not_matter(self):
        for mode in 'none', 'mac':
            self.configure(anti_spoofing=mode)
            self.assertIsNone(self.of(base.make_vif(
                addresses=['224.0.0.1'])))

    def test_groups(self):
        for mode, group in {'none': 29793, 'mac': 29793,
                            'full': 29795}.items():
            self.configure(anti_spoofing=mode)
            port = from_vif.tap_port(base.make_vif(), self.options)
            self.assertEqual(group, port.group)
            self.assertEqual(group, from_config.group(self.options))
            self.configure(firewall='agent')
            port = from_vif.tap_port(base.make_vif(), self.options)
            self.assertEqual(29796, port.group)
            self.assertFalse(port.is_filtered)
            self.assertEqual(29796, from_config.group(self.options))
            self.configure(firewall='none')

    def test_groups_that_are_one(self):
        for option in 'link_group', 'bridge_group':
            self.configure(filtered_group=self.options[option])
            self.assertRaises(exception.InvalidConfig,
                              from_config.port_fields, self.options)
            self.configure(filtered_group=29795,
                           agent_group=self.options[option])
            self.assertRaises(exception.InvalidConfig,
                              from_config.port_fields, self.options)
            self.configure(agent_group=29796)
