# SPDX-License-Identifier: Apache-2.0

"""README.rst is what the package index shows, so it must be valid.

So must be what Sphinx makes HTML of, also where there is no Sphinx.
"""

import io

from docutils import core

from tests import base
from tests import documents


class DocumentsTest(base.TestCase):

    def assert_valid(self, document):
        warnings = io.StringIO()
        core.publish_string(
            document.read_text(), writer_name='null', settings_overrides={
                'warning_stream': warnings, 'syntax_highlight': 'none'})
        self.assertEqual('', warnings.getvalue())

    def test_readme(self):
        self.assert_valid(base.README)

    def test_deploying(self):
        self.assert_valid(documents.DEPLOYING)

    def test_provider_network(self):
        self.assert_valid(documents.PROVIDER)
