# SPDX-License-Identifier: Apache-2.0

"""README.rst is what the package index shows, so it must be valid.

So must be what Sphinx makes HTML of, also where there is no Sphinx; and what
one page says of another must be there.
"""

import io
import re

from docutils import core
from docutils import nodes
from docutils.parsers.rst import roles

from tests import base
from tests import documents

_SOURCE = documents.DEPLOYING.parent
_BESIDE = [base.CHECKOUT / (name + '.rst')
           for name in ('CONTRIBUTING', 'HACKING', 'README', 'SECURITY')]
_PAGES = {str(path.relative_to(_SOURCE).with_suffix('')): path
          for path in _SOURCE.rglob('*.rst')}
_MAN_PAGES = 'tapmac', 'tapmac-agent', 'tapmac-migrate', 'tapmac-status'
_SECTIONS = {'Synopsis', 'Exit status', 'Files', 'Examples'}


class DocumentsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        # Sphinx's own, of which nothing is to be known here but the text.
        roles.register_generic_role('doc', nodes.literal)

    def assert_valid(self, document):
        warnings = io.StringIO()
        core.publish_string(
            document.read_text(), writer_name='null', settings_overrides={
                'warning_stream': warnings, 'syntax_highlight': 'none'})
        self.assertEqual('', warnings.getvalue())

    def test_beside_the_package(self):
        for path in _BESIDE:
            self.assert_valid(path)

    def test_deploying(self):
        self.assert_valid(documents.DEPLOYING)

    def test_provider_network(self):
        self.assert_valid(documents.PROVIDER)

    def test_cloud(self):
        self.assert_valid(documents.CLOUD)
        commands = documents.block(documents.CLOUD, 'network create')
        self.assertEqual(commands, documents.block(base.README,
                                                   'network create'))
        self.assertEqual(5, commands.count('openstack '))


class PagesTest(base.TestCase):
    """Pages know each other by their files, and by no title."""

    def titles(self):
        return {name: re.search(r'^(=+)\n(.*)\n\1$', path.read_text(),
                                re.MULTILINE)[2]
                for name, path in _PAGES.items()
                if name != 'readme' and name[4:] not in _MAN_PAGES}

    def test_each_is_in_the_index_with_a_sentence(self):
        text = _PAGES['index'].read_text()
        told = re.findall(r'^:doc:`(?:[^`<]*<)?([^`>]+)>?`\n    \S', text,
                          re.MULTILINE)
        self.assertEqual(sorted(set(_PAGES) - {'index'}), sorted(told))
        self.assertEqual(told, [
            re.sub(r'.*<(.*)>', r'\1', line) for block in re.findall(
                r':caption: .*\n\n((?:   .*\n)+)', text)
            for line in block.split('\n   ')
            for line in [line.strip()] if line])

    def test_each_other_page_is_there(self):
        for path in _PAGES.values():
            for name in re.findall(r':doc:`(?:[^`<]*<)?([^`>]+)>?`',
                                   path.read_text()):
                self.assertTrue((path.parent / (name + '.rst')).is_file(),
                                '%s: %s' % (path, name))

    def test_each_section_of_another_page_is_there(self):
        found = 0
        for path in _PAGES.values():
            text = re.sub(r'\s+', ' ', path.read_text())
            for section, name in re.findall(
                    r'"([^"]+)" (?:of|in|on) :doc:`([^`<]+)`', text):
                there = (path.parent / (name + '.rst')).read_text()
                self.assertRegex(there, r'(?m)^%s\n([=-])\1+$'
                                 % re.escape(section))
                found += 1
        self.assertLess(10, found)

    def test_links_from_beside_the_package(self):
        found = [link for path in _BESIDE
                 for link in re.findall(r'<(\S+\.rst)>`_', path.read_text())]
        self.assertLess(10, len(found))
        for link in found:
            self.assertTrue((base.CHECKOUT / link).is_file(), link)

    def test_none_is_called_by_its_title(self):
        for name, title in self.titles().items():
            for other, path in _PAGES.items():
                text = re.sub(r'\s+', ' ', path.read_text())
                self.assertFalse('"%s"' % title in text, (other, title))
                # The contributor guide is about files.
                self.assertFalse(
                    other != 'contributor'
                    and '``doc/source/%s.rst``' % name in text, (other, name))

    def test_man_pages(self):
        for name in _MAN_PAGES:
            text = _PAGES['cli/' + name].read_text()
            self.assertLessEqual(_SECTIONS, set(re.findall(
                r'^(\S.*)\n===+$', text, re.MULTILINE)), name)


class ReadmeTest(base.TestCase):

    def test_a_cell_has_one_value(self):
        text = base.README.read_text()
        head = text.index('An instance can not ...')
        rows = text[head:text.index('\n\n', head)].splitlines()[2:-1]
        self.assertLess(5, len(rows))
        for row in rows:
            _, *modes, by = re.split(r' {2,}', row)
            self.assertEqual(4, len(modes), row)
            self.assertLessEqual(set(modes), {'yes', 'no', 'option'}, row)
            self.assertEqual({'no'} == set(modes), by == 'nobody', row)
