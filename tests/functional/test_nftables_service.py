# SPDX-License-Identifier: Apache-2.0

"""nftables.service starts again, and guests stay what they are kept to.

Test strategy: the commands of the service as Debian has it, with the file in
etc/, while a guest sends honest and false frames all the time.
"""

from tests import base
from tests.functional import test_full_frames
from tests import hosts
from tests import network_configuration
from tests import patience
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import shields

_DROP_IN = (base.CHECKOUT / 'etc/systemd/system/nftables.service.d'
            / 'tapmac.conf').read_text()
_FILTER = '''
table inet filter {
    chain input {
        type filter hook input priority 0;
        tcp dport 22 accept
    }
}
'''
#: What the package has, in all that matters.
_CONF = '#!/usr/sbin/nft -f\n\nflush ruleset\n' + _FILTER


@base.needs_real_root(base.SEVERAL_USERS)
class NftablesServiceTest(test_full_frames.FullFramesTestCase):

    def setUp(self):
        super().setUp()
        missing = network_configuration.missing_nftables()
        if missing:
            self.cannot_run(missing)
        self.lay_network()
        self.hold()
        self.filter.shield(self.netlink, [4711], 'one')
        guest_filter.log_drops(self.host.link(base.TAP).index, True)
        self.before = self.state()

    def state(self):
        """Return all that is to stay."""
        self.assertTrue(shields.is_shielded(4711))
        with nft.Session() as session:
            self.assertTrue(filter_state.is_right(session))
            return (session.table(filter_table.NAME),
                    filter_state.elements(session),
                    filter_state.groups_in(session, filter_table.GROUPS),
                    nft_sets.elements(session, filter_table.NAME,
                                      filter_table.LOGGED),
                    shields.there(session))

    def service(self, command, configuration=_CONF, drop_in=_DROP_IN):
        status, said = network_configuration.nftables_service(
            command, configuration, drop_in)
        self.assertEqual((0, ''), (status, said), command)

    def others(self):
        """Return which tables of others there are, and how many rules."""
        found = {}
        with nft.Session() as session:
            for kind in 0xa01, 0xa07:
                for name in session.list('', '', kind, nft.of_family(
                        0, nft.body()), lambda told: nft.read(told).text(1)):
                    found[name] = found.get(name, -1) + 1
        del found[filter_table.NAME]
        return found

    def test_everything_else_is_as_without(self):
        hosts.add_rules('stray', 3)
        for command, others in (
                ('start', {'filter': 1}), ('start', {'filter': 1}),
                ('reload', {'filter': 1}), ('restart', {'filter': 1}),
                ('stop', {}), ('stop', {}), ('reload', {'filter': 1})):
            self.service(command)
            self.assertEqual(others, self.others())
            self.assertEqual(self.before, self.state())

    def test_what_is_not_flushed_stays(self):
        hosts.add_rules('stray', 3)
        for configuration, others in (
                (_FILTER, {'stray': 3, 'filter': 1}),
                ('\tflush  ruleset inet; # all of it\n' + _FILTER,
                 {'stray': 3, 'filter': 1}),
                (_FILTER, {'stray': 3, 'filter': 2}),
                ('flush ruleset bridge' + _FILTER, {'filter': 3}),
                ('flush ruleset;\n', {})):
            self.service('reload', configuration)
            self.assertEqual(others, self.others(), configuration)
            self.assertEqual(self.before, self.state())

    def test_a_mistake_changes_nothing(self):
        self.service('start')
        before = self.others()
        for configuration in (_CONF + 'table inet {', _CONF + 'flush all'):
            status, said = network_configuration.nftables_service(
                'reload', configuration, _DROP_IN)
            self.assertNotEqual(0, status)
            self.assertIn('syntax error', said)
            self.assertEqual(before, self.others())
            self.assertEqual(self.before, self.state())

    def test_without_our_file_the_table_is_gone(self):
        for command in 'stop', 'start', 'reload', 'restart':
            self.hold()
            self.service(command, drop_in='')
            with nft.Session() as session:
                self.assertIsNone(session.table(filter_table.NAME))

    def test_guests_notice_nothing(self):
        with self.speaking() as after:
            for command in ('restart', 'reload') * patience.amount(2, 5, 20):
                wait = after(10)
                self.service(command)
                wait()
        self.assertEqual(self.before, self.state())
