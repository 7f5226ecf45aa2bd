# SPDX-License-Identifier: Apache-2.0

"""Sphinx configuration of the documentation."""

import pathlib
import sys

import pbr.version

_SOURCE = pathlib.Path(__file__).parent
sys.path.append(str(_SOURCE))

from docutils import nodes  # noqa: E402
from sphinx import errors  # noqa: E402

try:
    import host_picture
    import mac_picture
except ImportError:
    # What draws them is in no distribution, and man pages have no picture.
    host_picture = mac_picture = None

project = 'vif-plug-tapmac'
author = 'the authors of vif-plug-tapmac'
copyright = author
release = pbr.version.VersionInfo('vif-plug-tapmac').version_string()
extensions = [
    'cliff.sphinxext',
    'oslo_config.sphinxconfiggen',
    'oslo_config.sphinxext',
]
# Commands of its own need not say where they come from.
autoprogram_cliff_app_dist_name = 'vif-plug-tapmac'
root_doc = 'index'
html_theme = 'furo'
html_title = 'vif-plug-tapmac'
html_copy_source = False

# Made when the documentation is, and not kept; so is the picture.
config_generator_config_file = [
    ('../../etc/oslo-config-generator/nova.conf', '_static/nova'),
    ('../../etc/oslo-config-generator/ml2_conf.ini', '_static/ml2_conf'),
    ('../../etc/oslo-config-generator/tapmac-agent.conf',
     '_static/tapmac-agent'),
]

man_pages = [
    ('cli/' + name, name, summary, author, 8) for name, summary in (
        ('tapmac', 'TAPs with a stable MAC for guests on Linux bridges'),
        ('tapmac-agent', 'security groups for guests on Linux bridges'),
        ('tapmac-migrate', 'ports of the Linux bridge agent come to tapmac'),
        ('tapmac-status', 'check a compute host before an upgrade'))]

#: As the README names pages, which is where they are in a checkout.
_IN_CHECKOUT = 'doc/source/'


def _read_from_here(app, _, page, content):
    """Have the README's links and picture be right from this directory."""
    if page == 'readme':
        content[0] = content[0].replace('<' + _IN_CHECKOUT, '<').replace(
            ':: ' + _IN_CHECKOUT, ':: ')


def _link_to_pages(app, doctree, page):
    """Have links to files of pages lead to what is made of them."""
    for link in doctree.findall(nodes.reference):
        name, dot, _ = link.get('refuri', '').partition('.rst')
        if page == 'readme' and dot and ':' not in name:
            if name not in app.env.found_docs:
                raise errors.SphinxError('README.rst: no page ' + name)
            link['refuri'] = app.builder.get_relative_uri(page, name)


def setup(app):
    if mac_picture:
        if not host_picture.is_drawn():
            raise errors.SphinxError(
                '%s is not what its source draws: python %s' % (
                    host_picture.PATH.name, host_picture.__file__))
        mac_picture.draw(_SOURCE / 'mac-story.svg')
    app.connect('include-read', _read_from_here)
    app.connect('doctree-resolved', _link_to_pages)
