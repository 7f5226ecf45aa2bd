"""Sphinx configuration of the documentation."""

project = 'vif-plug-tapmac'
extensions = ['openstackdocstheme']
root_doc = 'index'
html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_pdf_link = False
