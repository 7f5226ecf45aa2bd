# SPDX-License-Identifier: Apache-2.0

"""Each error crosses the privilege boundary as it is."""

import errno
import inspect

from os_vif import exception as os_vif_exception

from tests import base
from tests import documents
from vif_plug_tapmac import exception

CLASSES = [cls for cls in vars(exception).values() if inspect.isclass(cls)
           and issubclass(cls, exception.TapMacError)]
FACTS = dict.fromkeys(
    ('vif', 'reason', 'option', 'value', 'device', 'bridge', 'uplink',
     'remedy', 'step', 'error', 'differences', 'seconds', 'section'), 'FACT')


class ExceptionTest(base.TestCase):

    def test_crosses_privsep_unchanged(self):
        # What oslo.privsep does with an exception of the other side.
        for cls in CLASSES:
            error = cls(**FACTS)
            again = cls(*error.args)
            self.assertEqual(str(error), str(again))
            self.assertEqual(error.args, again.args)

    def test_says_all_it_knows(self):
        for cls in CLASSES:
            self.assertNotIn('%(', str(cls(**FACTS)))
            if cls is not exception.TapMacError:
                self.assertIn('FACT', str(cls(**FACTS)))
                self.assertRegex(str(cls(**FACTS)), 'must|report')

    def test_each_is_documented(self):
        self.assertEqual(
            {cls.__name__ for cls in CLASSES} - {'TapMacError'},
            {name for name, _, _ in documents.rows(
                documents.PLUG_ERRORS, 'Plug errors')})

    def test_base(self):
        # As os-vif's own has it, which the privileged side need not load.
        ours, os_vifs = (cls('said', code=7) for cls in (
            exception.TapMacError, os_vif_exception.ExceptionBase))
        for error in ours, os_vifs:
            self.assertEqual(('said', ('said',), {'code': 7}),
                             (str(error), error.args, error.kwargs))

    def test_errno(self):
        for code, words in {
                errno.EPERM: ('EPERM', 'CAP_NET_ADMIN'),
                errno.EXFULL: ('EXFULL', '1023'),
                errno.EROFS: ('EROFS', 'read-only'),
                errno.EOPNOTSUPP: ('EOPNOTSUPP', 'modprobe 8021q'),
                errno.EIO: ('EIO', 'dmesg'),
                4242: ('4242', 'dmesg')}.items():
            error = exception.KernelRefused.from_errno('tap0', 'a step', code)
            for word in ('tap0', 'a step') + words:
                self.assertIn(word, str(error))
