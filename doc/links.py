# SPDX-License-Identifier: Apache-2.0

"""Checks the links of the documentation that was made, as far as they stay in.

``python doc/links.py doc/build/html`` says which lead to a file or a place
that is not there, and exits with 1 then.
"""

import html.parser
import pathlib
import sys
import urllib.parse


class _Page(html.parser.HTMLParser):
    """A page: the places that are in it, and where its links lead."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, _, attributes):
        for name, value in attributes:
            if name == 'id' and value:
                self.places.add(value)
            elif name in ('href', 'src') and value is not None:
                self.links.append(value)


def broken(top: pathlib.Path) -> list[str]:
    """Return a sentence for each link that leads nowhere.

    :param top: a directory with HTML
    """
    pages = {path: _Page(path) for path in sorted(top.rglob('*.html'))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = path.parent / urllib.parse.unquote(parts.path)
            place = urllib.parse.unquote(parts.fragment)
            target = target.resolve()
            if not target.is_file():
                found.append('%s: there is no %s' % (path, link))
            elif place and target in pages and place not in pages[
                    target].places:
                found.append('%s: no place %s' % (path, link))
    return found


def main() -> int:
    top = pathlib.Path(sys.argv[1]).resolve()
    found = broken(top)
    for each in found:
        print(each)
    return bool(found or not any(top.rglob('*.html')))


if __name__ == '__main__':
    sys.exit(main())
