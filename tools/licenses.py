# SPDX-License-Identifier: Apache-2.0

"""Look at the licences of what is required: said, and said rightly.

Each requirement has its licence behind it. What is installed beside this
Python is asked, too; and what the package itself needs must go with
Apache-2.0. Prints what is wrong, one a line, and ends with 1 then.
"""

import configparser
from importlib import metadata
import pathlib
import re
import sys
import typing

_TOP = pathlib.Path(__file__).parent.parent
#: What the licences of programs are called, by what is behind a requirement.
_CALLED = {
    'Apache-2.0': r'apache', 'BSD': r'bsd', 'MIT': r'\bmit\b|expat',
    'MPL-2.0': r'mpl|mozilla', 'PSF': r'psf|python software foundation',
    'LGPLv2+': r'lgpl|lesser', 'GPLv2': r'gpl|gnu general',
}
#: A program under one of them can be a part of ours, or, LGPL, be used by it.
_GO_WITH_OURS = {'Apache-2.0', 'BSD', 'MIT', 'PSF', 'LGPLv2+'}


def _lines() -> typing.Iterator[tuple[str, str, bool]]:
    """Yield where a requirement is, what is said there, and if it is ours."""
    for name in 'requirements.txt', 'test-requirements.txt':
        for line in (_TOP / name).read_text().splitlines():
            if line and not line.startswith(('#', '-')):
                yield name, line, name == 'requirements.txt'
    read = configparser.ConfigParser(interpolation=None)
    read.read(_TOP / 'setup.cfg')
    for extra in read['extras']:
        for line in read['extras'][extra].split('\n'):
            if line:
                yield 'setup.cfg, ' + extra, line, True


def _installed(name: str) -> str | None:
    """Return all that a distribution says of its licence, None if not here."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    return ' '.join([
        *found.get_all('License-Expression', []),
        *(text[:200] for text in found.get_all('License', [])),
        *(each for each in found.get_all('Classifier', [])
          if each.startswith('License'))]).lower()


def _wrong(line: str, ours: bool) -> str | None:
    """Return what is wrong with a requirement, None if nothing is."""
    required, _, said = line.partition(' # ')
    # One of several is enough, and is the one that is meant.
    licences = re.split(r'/| or ', said.partition(',')[0].strip())
    unknown = set(licences) - set(_CALLED)
    if unknown:
        return 'no licence that is known here: %r' % said
    if ours and not _GO_WITH_OURS & set(licences):
        return '%s does not go with Apache-2.0' % said
    name = re.split(r'[<>=!~;\[ ]', required)[0]
    installed = _installed(name)
    if installed and not any(re.search(_CALLED[each], installed)
                             for each in licences):
        return 'it says of itself: %s' % installed
    return None


def main() -> int:
    found = [(where, line, wrong) for where, line, ours in _lines()
             if (wrong := _wrong(line, ours)) is not None]
    for each in found:
        print('%s: %s: %s' % each)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
