# SPDX-License-Identifier: Apache-2.0

"""Which members have gone from intervals, to the address."""

import collections
import ipaddress
import itertools

import hypothesis
from hypothesis import strategies

from tests import base
from vif_plug_tapmac.kernel import agent_cuts

_NAME = 'members4_x'
_START = int(ipaddress.IPv4Address('192.0.2.0'))
_ENDS = {0, 1, 2 ** 32 - 2, 2 ** 32 - 1}
_ADDRESSES = strategies.frozensets(strategies.one_of(
    strategies.integers(_START, _START + 20), strategies.sampled_from(
        sorted(_ENDS))))


def seen(addresses):
    """Return what there is with these members, as few intervals as can be."""
    intervals = []
    for _, run in itertools.groupby(
            enumerate(sorted(addresses)), lambda each: each[1] - each[0]):
        numbers = [number for _, number in run]
        intervals.append(tuple(number.to_bytes(4, 'big')
                               for number in (numbers[0], numbers[-1])))
    return agent_cuts.Seen(collections.defaultdict(collections.Counter),
                           {_NAME: intervals}, {})


class FormerMembersTest(base.TestCase):

    @hypothesis.given(_ADDRESSES, _ADDRESSES)
    def test_those_that_have_gone_and_no_others(self, before, after):
        found = [int(address) for prefix in agent_cuts._former_members(
            seen(before), seen(after))
            for address in ipaddress.ip_network(prefix)]
        self.assertEqual(sorted(before - after), sorted(found))
