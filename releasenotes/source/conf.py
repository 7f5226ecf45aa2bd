# SPDX-License-Identifier: Apache-2.0

"""Sphinx configuration of the release notes."""

project = 'vif-plug-tapmac Release Notes'
extensions = ['reno.sphinxext']
root_doc = 'index'
html_theme = 'alabaster'
