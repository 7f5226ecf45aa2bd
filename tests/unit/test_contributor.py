# SPDX-License-Identifier: Apache-2.0

"""The contributor guide knows each file, and no other."""

import re

from tests import base

_GUIDE = base.CHECKOUT / 'doc/source/contributor.rst'
_PACKAGE = base.CHECKOUT / 'vif_plug_tapmac'


class WhereAThingLivesTest(base.TestCase):

    def told(self):
        """Return the files that the guide has, by their paths."""
        text = _GUIDE.read_text().partition('Where a thing lives\n===')[2]
        text = text.partition('\n====')[0]
        found, package = [], None
        for line in text.splitlines():
            heading = re.match(r'``(?:vif_plug_tapmac/)?((?:\w+/)?)``, for',
                               line)
            if heading is not None:
                package = heading[1]
            elif line.startswith('``'):
                found += [package + name
                          for name in re.findall(r'``(\w+\.py)``', line)]
        return found

    def test_each_file_once(self):
        self.assertEqual(
            sorted(str(path.relative_to(_PACKAGE))
                   for path in _PACKAGE.rglob('*.py')
                   if path.name != '__init__.py'), sorted(self.told()))

    def test_answers_name_files_that_are_there(self):
        text = _GUIDE.read_text().partition('How do I add ...\n')[2]
        text = text.partition('Beside the package')[0]
        self.assertLessEqual(10, text.count('\n... '))
        for answer in text.split('\n... ')[1:]:
            package = _PACKAGE
            for name in re.findall(r'``((?:\w+/)*\w+\.\w+)``', answer):
                places = [base.CHECKOUT / name, _PACKAGE / name,
                          package / name]
                there = [place for place in places if place.exists()]
                self.assertNotEqual([], there, name)
                package = there[0].parent
