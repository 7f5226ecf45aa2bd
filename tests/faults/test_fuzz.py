# SPDX-License-Identifier: Apache-2.0

"""Whatever a VIF, a request, an alias or an answer holds: typed errors only.

And a host that is as it was, wherever something is refused. What a caller who
is an enemy can reach is in tests/functional/test_compromised_caller.py.
"""

import contextlib
import importlib.util
import inspect
import logging
import pathlib
import subprocess
import sys
import tempfile

import hypothesis
from hypothesis import strategies as st
import os_vif
from os_vif.objects import network
from os_vif.objects import vif as vif_objects

from tests import base
from tests import faults
from tests.faults import boundary
from tests.faults import targets
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged

_EXAMPLES = patience.amount(50, 300, 5000)
#: In seconds, for each of what atheris runs.
_ATHERIS = 120


def _classes(kind):
    return [cls for _, cls in inspect.getmembers(vif_objects, inspect.isclass)
            if issubclass(cls, kind)]


VIFS = _classes(vif_objects.VIFBase)
PROFILES = _classes(vif_objects.VIFPortProfileBase)
OFFLOADS = _classes(vif_objects.DatapathOffloadBase)

_wild = (st.none() | st.booleans() | st.integers() | st.floats() | st.text()
         | st.binary() | st.sampled_from((
             'lo', 'all', '', 'x' * 16, 'tap%d', '../x', 'a b', 'a\0', [], {},
             ('tap0',), {'tap0'}, object(), 2 ** 70, 'br100', base.TAP)))
#: What a field may hold that a caller in his senses gives.
_sane = {
    'id': st.sampled_from((base.VIF_ID, base.VIF_ID.upper(),
                           '00000009-0000-4000-8000-000000000000')),
    'vif_name': st.sampled_from((base.TAP, 'tap9', 'eth9')),
    'address': st.sampled_from((base.GUEST_MAC, 'FA:16:3E:00:00:09',
                                '01:00:5e:00:00:01', '00:00:00:00:00:00')),
    'bridge_name': st.sampled_from((base.BRIDGE, 'br9', 'eth9')),
    'bridge': st.sampled_from((base.BRIDGE, 'br9', 'eth9')),
    'plugin': st.sampled_from(('tapmac', 'ovs', 'linux_bridge', 'noop')),
    'mtu': st.sampled_from((None, 68, 1500, 9000, 67, 65522)),
    'vlan': st.sampled_from((None, 0, 1, 4094, 4095)),
    'bridge_interface': st.sampled_from((None, 'eth9', 'eth9.7', 'lo')),
    'datapath_type': st.sampled_from(('tapmac', 'system', None)),
}


@st.composite
def _objects(draw, classes):
    """An object of one of these classes, each field sane, wild or unset.

    What the class itself refuses stays unset: nobody can have such an object.
    """
    made = draw(st.sampled_from(classes))()
    wildness = draw(st.sampled_from((0, 1, 3)))
    for name in sorted(made.fields):
        how = draw(st.integers(0, 9))
        if how < wildness:
            value = draw(_wild)
        elif how == 9:
            continue
        elif name == 'network':
            value = draw(_objects([network.Network])).made
        elif name == 'port_profile':
            value = draw(_objects(PROFILES + OFFLOADS)).made
        else:
            value = draw(_sane.get(name, st.booleans() | st.none()))
        with contextlib.suppress(Exception):
            setattr(made, name, value)
    return _Shown(made)


class _Shown:
    """An object that hypothesis can show, whatever it holds."""

    def __init__(self, made):
        self.made = made

    def __repr__(self):
        return '%s(%r)' % (type(self.made).__name__, {
            name: _Shown(value) if hasattr(value, 'fields') else value
            for name, value in vars(self.made).items()
            if name.startswith('_obj_')})


_numbers = st.sampled_from((-1, 0, 1, 67, 68, 1500, 65522, 2 ** 31, 2 ** 63))


@st.composite
def _requests(draw, valid):
    fields = dict(valid)
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=4)):
        fields[name] = draw(_wild | _numbers)
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=1)):
        del fields[name]
    if draw(st.integers(0, 9)) == 9:
        fields[draw(st.text() | st.integers() | st.none())] = draw(_wild)
    return fields


class HostFuzzTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.CRITICAL

    def setUp(self):
        super().setUp()
        # Somebody else's, in the way.
        self.host.add('eth9', 'veth', peer='wire9')
        self.host.add('br9', 'bridge')
        self.plugin = os_vif._EXT_MANAGER['tapmac'].obj
        self.configure(claim_plugins=['ovs', 'linux_bridge'])
        self.before = self.host.state()
        self.tries = self.served = 0

    def attempt(self, function, *arguments):
        """Call it; expect success, or a typed error and the host as before.

        What it made goes again.
        """
        self.tries += 1
        try:
            function(*arguments)
        except exception.TapMacError as error:
            self.assertEqual(self.before, self.host.state(), error)
            return
        self.served += 1
        known = [link.name for link in self.before[0]]
        for link in self.host.state()[0]:
            if link.name not in known:
                self.host.delete(link.name)
        if self.before != self.host.state():  # Such as a changed br9.
            self.assertEqual(known, [link.name for link
                                     in self.host.state()[0]])
            self.before = self.host.state()

    def assert_some_of_both(self):
        self.assertGreater(self.served, 0)
        self.assertGreater(self.tries, self.served)
        faults.tell(self, '%d tries, %d served' % (self.tries, self.served))

    def test_vifs(self):
        @hypothesis.settings(max_examples=_EXAMPLES)
        @hypothesis.given(_objects(VIFS + 5 * [
            vif_objects.VIFBridge, vif_objects.VIFOpenVSwitch]),
            st.sampled_from(('plug', 'unplug')))
        def test(shown, what):
            self.attempt(getattr(self.plugin, what), shown.made,
                         base.INSTANCE)
        test()
        self.assert_some_of_both()

    def test_each_field_of_each_class(self):
        # Not left to chance: one field that is unset, None, or wild.
        values = [base.UNSET, None, 'wild', 7, '', 2 ** 70]
        if not patience.LONG:
            values = values[:3]
        for cls in VIFS:
            for profile in [None] + PROFILES:
                fields = dict(plugin='tapmac', cls=cls)
                if profile is not None:
                    fields['port_profile'] = profile()
                for name in sorted(cls.fields):
                    for value in values:
                        vif = base.make_vif(**fields)
                        if vif.obj_attr_is_set(name):
                            delattr(vif, '_obj_' + name)
                        if value is not base.UNSET:
                            with contextlib.suppress(Exception):
                                setattr(vif, name, value)
                        self.attempt(self.plugin.unplug, vif, base.INSTANCE)
                        self.attempt(self.plugin.plug, vif, base.INSTANCE)
                    if not patience.LONG and profile is not None:
                        break
        self.assert_some_of_both()

    def test_requests(self):
        valid = base.make_port(owner=0).to_fields()
        identity = {'vif_id': base.VIF_ID, 'name': base.TAP}

        @hypothesis.settings(max_examples=_EXAMPLES)
        @hypothesis.given(st.one_of(
            _requests(valid).map(lambda fields: (
                privileged.ensure_port, fields)),
            _requests(identity).map(lambda fields: (
                privileged.remove_port, fields)),
            _wild.map(lambda wild: (privileged.ensure_port, wild)),
            _wild.map(lambda wild: (privileged.remove_port, wild))))
        def test(request):
            self.attempt(*request)
        test()
        self.assert_some_of_both()


class RecordedTestCase(base.FunctionalTestCase):
    """A test that knows marks and answers of a real plug."""

    LOG_LEVEL = logging.CRITICAL

    def setUp(self):
        super().setUp()
        if boundary.missing():
            self.cannot_run(boundary.missing())
        heard = self.heard = []

        class Listening(boundary.Kernel):
            def answer(self, data):
                heard.append(data)
                return data
        boundary.run(self.plug, Listening())
        self.assertGreater(len(heard), 10)
        self.marks = [link.alias.encode() for link in self.host.state()[0]
                      if link.alias]
        self.assertEqual(2, len(self.marks))


class ParserFuzzTest(RecordedTestCase):

    def test_answers(self):
        @hypothesis.settings(max_examples=4 * _EXAMPLES)
        @hypothesis.given(st.sampled_from(self.heard), st.data())
        def test(answer, data):
            changed = bytearray(answer)
            for _ in range(data.draw(st.integers(0, 5))):
                at = data.draw(st.integers(0, len(changed)))
                end = at + data.draw(st.integers(0, 8))
                changed[at:end] = data.draw(st.binary(max_size=8))
            targets.answers(bytes(changed))
        test()

    def test_errno_that_no_error_has(self):
        # Found by atheris: Python has no words for this one.
        targets.answers(boundary.error_message(self.heard[0][:16], 2 ** 31))

    def test_marks(self):
        for found in self.marks:
            targets.marks(found)
        self.assertIsNotNone(mark.TapMark.parse(self.marks[0].decode())
                             or mark.TapMark.parse(self.marks[1].decode()))

        @hypothesis.settings(max_examples=4 * _EXAMPLES)
        @hypothesis.given(
            st.binary() | st.from_regex(mark._TAP_MARK).map(str.encode)
            | st.text().map(lambda text: text.encode(
                'utf-8', 'surrogatepass')))
        def test(data):
            targets.marks(data)
        test()


if patience.LONG:
    class AtherisTest(RecordedTestCase):

        def test_it(self):
            if importlib.util.find_spec('atheris') is None:
                self.cannot_run('needs tests/faults/requirements.txt')
            for name, seeds in (('marks', self.marks),
                                ('answers', self.heard)):
                with tempfile.TemporaryDirectory() as directory:
                    for number, seed in enumerate(seeds):
                        pathlib.Path(directory, str(number)).write_bytes(seed)
                    done = subprocess.run(
                        [sys.executable, '-m', 'tests.faults.targets', name,
                         directory, '-max_total_time=%d' % _ATHERIS,
                         '-max_len=4096', '-print_final_stats=1',
                         '-artifact_prefix=%s/' % directory],
                        cwd=base.CHECKOUT, capture_output=True, text=True)
                    self.assertEqual(0, done.returncode, done.stderr[-4000:])
                    faults.tell(self, '%s: %s' % (name, ' '.join(
                        line for line in done.stderr.splitlines()
                        if 'number_of_executed_units' in line
                        or 'DONE' in line)))
