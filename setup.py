# SPDX-License-Identifier: Apache-2.0

import configparser
import pathlib

import setuptools

_HERE = pathlib.Path(__file__).parent


def _readme():
    """Return the README as it can be shown where no checkout is around it.

    It names pages and a picture by their files here. The package index has
    none of these: there, the links lead to the repository.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(_HERE / 'setup.cfg', encoding='utf-8')
    url = config['metadata']['url'] + '/%s/branch/master/doc/'
    text = (_HERE / 'README.rst').read_text(encoding='utf-8')
    return text.replace('<doc/', '<' + url % 'src').replace(
        '.. image:: doc/', '.. image:: ' + url % 'raw')


# pbr has no words for an SPDX expression (PEP 639).
setuptools.setup(setup_requires=['pbr>=6.1.0'], pbr=True,
                 license_expression='Apache-2.0', long_description=_readme())
