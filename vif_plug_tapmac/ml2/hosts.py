# SPDX-License-Identifier: Apache-2.0

"""Which hosts are ours, and why one is not that seems to be meant. Pure."""

import fnmatch
import typing


class Hosts:
    """The hosts that an option with shell patterns names."""

    def __init__(self, patterns: typing.Iterable[str]) -> None:
        self.patterns = tuple(patterns)

    def __contains__(self, host: str) -> bool:
        return any(fnmatch.fnmatchcase(host, pattern)
                   for pattern in self.patterns)

    def nearly(self, host: str) -> str | None:
        """Return a pattern that this host misses by case or domain only.

        :param host: one that is not among these
        :returns: the first such pattern; None if there is none
        """
        for pattern in self.patterns:
            if fnmatch.fnmatchcase(_short(host), _short(pattern)):
                return pattern
        return None


def _short(name: str) -> str:
    """Return what is left of a name without domain, in lower case."""
    return name.lower().split('.', 1)[0]
