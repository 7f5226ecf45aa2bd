# SPDX-License-Identifier: Apache-2.0

"""Sphinx configuration of the documentation."""

import pathlib
import sys

_SOURCE = pathlib.Path(__file__).parent
sys.path.append(str(_SOURCE))

import mac_picture  # noqa: E402

project = 'vif-plug-tapmac'
author = 'the authors of vif-plug-tapmac'
copyright = author
extensions = [
    'openstackdocstheme',
    'cliff.sphinxext',
    'oslo_config.sphinxconfiggen',
    'oslo_config.sphinxext',
]
# Commands of its own need not say where they come from.
autoprogram_cliff_app_dist_name = 'vif-plug-tapmac'
root_doc = 'index'
html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_pdf_link = False

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
        ('tapmac-migrate', 'ports of the Linux bridge agent come to tapmac'),
        ('tapmac-status', 'check a compute host before an upgrade'))]


def setup(app):
    mac_picture.draw(_SOURCE / 'mac-story.svg')
