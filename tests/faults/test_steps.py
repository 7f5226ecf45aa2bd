# SPDX-License-Identifier: Apache-2.0

"""Each system call of plug and unplug fails, with each errno it can give.

And the process is killed before and after each. Then the host is as it was
before, or the next plug completes it; and the error says which step failed,
on which device, and why.

How each kind of step can fail is in ERRNOS. A step that is not in there fails
the suite: whoever adds it says how it fails.
"""

import contextlib
import dataclasses
import errno
import fnmatch
import logging

import fixtures

from tests import base
from tests import faults
from tests.faults import boundary
from tests.functional import test_sigkill
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import port
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import TapIdentity

_NO_DESCRIPTOR = ('EMFILE', 'ENFILE', 'ENOMEM')
_RTNETLINK = ('ENOMEM', 'ENOBUFS', 'EPERM', 'EBUSY', 'EINTR', 'EAGAIN',
              'EINVAL', 'EOPNOTSUPP')
#: How each step can fail, the likeliest first: the short form takes two.
ERRNOS = {
    'epoll_create1': _NO_DESCRIPTOR,
    'socketpair': _NO_DESCRIPTOR,
    'socket netlink': _NO_DESCRIPTOR + ('ENOBUFS', 'EPERM',
                                        'EPROTONOSUPPORT'),
    'socket unix': _NO_DESCRIPTOR + ('ENOBUFS', 'EACCES'),
    'setsockopt': ('ENOMEM', 'EPERM', 'ENOBUFS'),
    'bind': ('EADDRINUSE', 'ENOMEM', 'EPERM'),
    'epoll_ctl': ('ENOMEM', 'ENOSPC'),
    'close *': ('EINTR', 'EIO'),
    'late answer': ('ENOBUFS',),
    'thread': ('EAGAIN', 'ENOMEM', 'EPERM'),
    'answer to *': ('ENOBUFS', 'ENOMEM', 'EBADF', 'ECONNRESET', 'EINTR',
                    'EAGAIN'),
    'RTM_GETLINK DUMP': _RTNETLINK,
    'RTM_GETLINK': ('ENODEV',) + _RTNETLINK,
    'RTM_GETADDR*': _RTNETLINK,
    'RTM_GETNEIGH': ('ENOENT', 'ENODEV') + _RTNETLINK,
    'RTM_NEWLINK EXCL|CREATE': ('EEXIST', 'ENODEV') + _RTNETLINK,
    'RTM_NEWLINK': ('ENODEV', 'EEXIST', 'EXFULL', 'ELOOP', 'ENETDOWN',
                    'EADDRNOTAVAIL', 'ERANGE') + _RTNETLINK,
    'RTM_SETLINK': ('EPERM', 'ENODEV') + _RTNETLINK,
    'RTM_???LINKPROP*': ('EEXIST', 'ENOENT', 'ENODEV') + _RTNETLINK,
    'RTM_DELLINK': ('ENODEV',) + _RTNETLINK,
    'RTM_NEWNEIGH REPLACE|CREATE': ('ENODEV', 'ENOENT', 'EEXIST')
    + _RTNETLINK,
    'RTM_DELNEIGH': ('ENOENT', 'ENODEV') + _RTNETLINK,
    'RTM_NEWQDISC *': ('ENOMEM', 'EOPNOTSUPP', 'ENOENT') + _RTNETLINK,
    'RTM_NEWTFILTER *': ('ENOMEM', 'EOPNOTSUPP', 'ENOENT') + _RTNETLINK,
    'RTM_GETTFILTER': ('ENOENT', 'EINVAL') + _RTNETLINK,
    'RTM_DELTFILTER': ('ENOENT', 'EINVAL') + _RTNETLINK,
    'netfilter *': ('EPERM', 'ENOENT', 'EINTR', 'EAGAIN') + _RTNETLINK,
    'open /dev/net/tun': ('ENOENT', 'ENODEV', 'ENXIO', 'EACCES', 'EPERM',
                          'EINTR', 'EBUSY') + _NO_DESCRIPTOR,
    'ioctl TUNSETIFF': ('EBUSY', 'EPERM', 'EINVAL', 'ENOMEM', 'EEXIST',
                        'EINTR', 'EBADFD', 'ENOBUFS', 'E2BIG'),
    'ioctl TUNSETOWNER': ('EINVAL', 'EBADFD', 'EPERM', 'EINTR'),
    'ioctl TUNSETPERSIST': ('EBADFD', 'EPERM', 'EINTR'),
    'ioctl SIOCSIFHWADDR': ('EADDRNOTAVAIL', 'EBUSY', 'EINVAL', 'EPERM',
                            'EBADFD', 'EINTR', 'ENODEV'),
    'ioctl SIOCGIFINDEX': ('ENODEV', 'EINTR'),
    'open /proc/sys/net/bridge/*': ('ENOENT', 'EACCES') + _NO_DESCRIPTOR,
    'open /sys/class/net/*': ('ENOENT', 'EACCES') + _NO_DESCRIPTOR,
    'open /proc/sys/net/ipv?/conf/*': ('ENOENT', 'EROFS', 'EACCES', 'EPERM')
    + _NO_DESCRIPTOR,
    'write /proc/sys/net/ipv?/conf/*': ('EINVAL', 'EPERM', 'EINTR',
                                        'ENOMEM'),
}
#: What can have an effect although it is refused.
_CHANGES = ('RTM_NEW', 'RTM_DEL', 'RTM_SET', 'ioctl TUN', 'ioctl SIOCSIF',
            'write ')
#: What the kernel says only where it is so, and nobody would look again.
_ONLY_IF_TRUE = (('RTM_DELLINK', 'ENODEV'),)
#: What an error is about, in its own words.
_DEVICES = (base.TAP, base.BRIDGE, '/dev/net/tun', 'netlink: opening a socket',
            'nftables', 'the host: listing its links', 'link group')


def errnos(step: str) -> tuple[str, ...]:
    """Return how a step can fail."""
    for pattern, names in ERRNOS.items():
        if fnmatch.fnmatchcase(step, pattern):
            return names
    raise AssertionError(
        'The step "%s" is new: say in ERRNOS how it can fail' % step)


def faults_at(place):
    """Return the faults that a step can have, the most telling first."""
    step = place[0]
    names = errnos(step)
    codes = [getattr(errno, name) for name in names]
    refusals = [(name, boundary.Refusing(place, code))
                for name, code in zip(names, codes)
                if (step, name) not in _ONLY_IF_TRUE]
    found = refusals[:1] + [('SIGKILL', boundary.Dying(place))]
    if step.startswith(_CHANGES):
        found += [('%s in spite of success' % name,
                   boundary.Betraying(place, code))
                  for name, code in zip(names, codes)]
    found += refusals[1:]
    if boundary.is_request(step):
        found += [('%s on sending' % name,
                   boundary.RefusingToSend(place, getattr(errno, name)))
                  for name in ('ENOBUFS', 'ENOMEM', 'EPERM', 'EINTR')]
    return found


class StepsTestCase(test_sigkill.SigkillTestCase):
    """Each step of one operation fails, in each way.

    Subclasses say which: "prepare" makes the host as it is before, and "call"
    is what meets the faults.
    """

    LOG_LEVEL = logging.ERROR

    #: What the kernel says only where it is so, and would be believed here.
    ONLY_IF_TRUE = ()

    #: How long it looks once more at what changes, and waits for answers.
    PORT_PATIENCE, ANSWER_PATIENCE = 0.5, 1.0

    #: Whether a guest holds the TAP, so that nothing is ever raised.
    HELD = False

    def setUp(self):
        super().setUp()
        missing = boundary.missing()
        if missing:
            self.cannot_run(missing)
        # Each plug asks for changes of the firewall, and not only where the
        # ones before took no time.
        self.patch(bridge_health._Firewall, '_MOST', patience.HANG)
        self.patch(bridge_health, '_firewall', bridge_health._Firewall())
        # What is done once in a process is done.
        self.plug()
        self.unplug()
        self.remove_all()

    def prepare(self):
        pass

    def call(self):
        self.plug()

    def start_anew(self):
        """Make the host as it is before; return its state."""
        self.remove_all()
        self.prepare()
        return self.host.state()

    def run_with(self, kernel):
        with contextlib.ExitStack() as patches:
            # Where nothing is to go wrong, a busy machine may take its time.
            if type(kernel) is not boundary.Kernel:
                for place, bound in (
                        (port.__name__ + '._GIVES_UP_AFTER',
                         self.PORT_PATIENCE),
                        (rtnetlink.__name__ + '._ANSWERS_WITHIN',
                         self.ANSWER_PATIENCE)):
                    patches.enter_context(fixtures.MonkeyPatch(
                        place, bound))
            try:
                return boundary.run(self.call, kernel,
                                    lambda: self.logs.output)
            except TimeoutError:
                self.fail('hangs')

    def assert_complete(self):
        self.assertEqual(self.complete, self.read_back())

    def learn(self):
        """Let nothing meet it; return its steps."""
        self.start_anew()
        outcome = self.run_with(boundary.Kernel())
        self.assertIsNone(outcome.error, outcome.traceback)
        self.complete = self.read_back()
        return outcome.steps

    def inject_all(self):
        injected = 0
        before = None
        for number, place in enumerate(self.learn()[
                ::4 if patience.EMULATED else patience.amount(6, 1, 1)]):
            found = [fault for fault in faults_at(place)
                     if (place[0], fault[0]) not in self.ONLY_IF_TRUE]
            if not patience.LONG:
                found = found[:2]
                if (place[0].startswith(('RTM_', 'answer ', 'late '))
                        or not patience.IN_FULL):
                    # There are many: an error or a kill, by turns.
                    found = found[number % 2:][:1]
            for name, kernel in found:
                injected += 1
                if before is None or before != self.host.state():
                    before = self.start_anew()
                with describing('%s of %s (%d)' % (name, *place)):
                    self.check(self.run_with(kernel), before)
        self.report(injected)

    def check(self, outcome, before):
        seen = self.host.state()
        if outcome.error is not None:
            self.assert_typed(outcome)
            self.assertEqual([], [link for link in seen[0] if link.lost_name])
            self.assert_nothing_in_between(seen, before)
        if outcome.killed:
            self.assert_nothing_in_between(seen, before)
        if seen != before or outcome.error is None and not outcome.killed:
            if outcome.error is None and not (
                    outcome.killed or self.HELD and self.excused(outcome)):
                self.assert_complete()
            self.call()
            self.assert_complete()

    def excused(self, outcome):
        """Return whether the log says what a guest's TAP lacks."""
        return 'could not be mended' in outcome.log

    def assert_typed(self, outcome):
        self.assertFalse(self.HELD, outcome.traceback)
        self.assertTrue(issubclass(outcome.error.kind, exception.TapMacError),
                        outcome.traceback)
        text = str(outcome.error)
        self.assertTrue(any(word in text for word in _DEVICES), text)
        if outcome.error.kind is exception.KernelRefused:
            self.assertRegex(text, r'failed with ([A-Z0-9]+ \(|no effect)')

    def assert_nothing_in_between(self, seen, before):
        """Expect the TAP to be as before, finished or gone.

        A bridge may be left: finished, or half-made and known as such.
        """
        was = {link.name: link for link in before[0]}
        now = {link.former_name or link.name: link for link in seen[0]}
        self.assertLessEqual(
            set(now), set(was) | {base.TAP, base.BRIDGE}, 'left over')
        if base.TAP in now and base.TAP not in was:
            self.assertTrue(now[base.TAP].persistent)
            self.assert_complete()
        if base.BRIDGE in now and base.BRIDGE not in was:
            self.assertIn(now[base.BRIDGE].alias, (None, mark.BRIDGE_MARK))

    def report(self, injected):
        self.assertGreater(injected, 5 if patience.IN_FULL else 0)
        faults.tell(self, '%d faults injected' % injected)


@contextlib.contextmanager
def describing(fault):
    """Say which fault it was, where an assertion fails."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError('%s: %s' % (fault, error)) from error


class NewTapTest(StepsTestCase):

    def test_on_a_new_bridge(self):
        self.inject_all()

    def test_with_many_queues(self):
        self.only_in_full()
        self.configure(multiqueue=True)
        self.inject_all()


class ShieldedTest(StepsTestCase):

    def prepare(self):
        self.plug()
        self.host.delete(base.TAP)
        guest_filter.GuestFilter().unshield()

    def call(self):
        self.configure(host_shield=True)
        self.plug()

    def test_new_tap_and_new_shield(self):
        self.inject_all()


class NewTapOnABridgeOfOursTest(StepsTestCase):

    def prepare(self):
        self.plug()
        self.host.delete(base.TAP)

    def test_it(self):
        self.inject_all()


class NewTapOnAnothersBridgeTest(StepsTestCase):

    def prepare(self):
        self.host.add(base.BRIDGE, 'bridge', address='02:00:00:00:00:01')
        # Its addresses would come and go with its carrier.
        self.host.quiet_ipv6(base.BRIDGE)
        self.host.set(base.BRIDGE, state='up')

    def keeps_its_mtu(self):
        return None

    def test_it(self):
        self.inject_all()


class IdleTapTest(StepsTestCase):

    def prepare(self):
        self.plug()

    def test_that_is_as_it_should_be(self):
        self.inject_all()


class IdleTapToMendTest(StepsTestCase):

    def prepare(self):
        self.plug()
        self.host.set(base.TAP, address='02:00:00:00:00:01', mtu=1400,
                      state='down', master=0, group=0)

    def test_it(self):
        self.inject_all()

    def assert_nothing_in_between(self, seen, before):
        self.assertIsNotNone(self.host.find(base.TAP))


class TapToMakeAnewTest(StepsTestCase):

    def prepare(self):
        self.plug(base.make_vif(bridge_name='br200'))

    def test_it(self):
        self.inject_all()


class HeldTapTest(StepsTestCase):
    """A guest's: plug never raises, and the guest keeps its TAP."""

    HELD = True

    def setUp(self):
        self.guest = None
        super().setUp()
        self.addCleanup(self.let_go)

    def let_go(self):
        if self.guest is not None:
            self.guest.close()
            self.guest = None

    def start_anew(self):
        self.let_go()
        return super().start_anew()

    def prepare(self):
        self.plug()
        self.guest = hosts.Guest(base.TAP)
        self.host.set(base.TAP, state='down', master=0)

    def assert_nothing_in_between(self, seen, before):
        self.assertTrue(self.host.link(base.TAP).held)

    def assert_typed(self, outcome):
        # Before it is known that a guest holds the TAP, it may raise.
        self.HELD = False
        try:
            super().assert_typed(outcome)
        finally:
            self.HELD = True
        self.assertRegex(str(outcome.error),
                         r'opening a socket|%s: looking it up' % base.TAP)

    def test_it(self):
        self.inject_all()


class UnplugTest(StepsTestCase):

    # Nothing is there to unplug.
    ONLY_IF_TRUE = (('RTM_GETLINK', 'ENODEV'),)

    def prepare(self):
        self.plug()

    def call(self):
        self.unplug()

    def read_back(self):
        return self.host.find(base.TAP)

    def assert_nothing_in_between(self, seen, before):
        tap = self.host.find(base.TAP)
        self.assertTrue(tap is None or tap in before[0])

    def test_it(self):
        self.inject_all()


class PurgeTest(UnplugTest):

    def call(self):
        removing.remove_many([TapIdentity(base.VIF_ID, base.TAP)], False,
                             29793)

    def read_back(self):
        return [link for link in self.host.links() if link.is_tap]

    def assert_nothing_in_between(self, seen, before):
        for tap in self.read_back():
            self.assertEqual(base.TAP, tap.former_name or tap.name)
            if tap.lost_name is None:
                # Before Linux 6.2 it is down to lose its name.
                self.assertIn(dataclasses.replace(
                    tap, former_name=None,
                    up=tap.up or tap.former_name is not None), before[0])
