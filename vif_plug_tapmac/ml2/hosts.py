# SPDX-License-Identifier: Apache-2.0

"""Which hosts are ours, and why one is not that seems to be meant. Pure."""

import fnmatch
import typing


class Hosts:
    """The hosts that an option with shell patterns names.

    :param but: of these those that another option names are none
    """

    def __init__(self, patterns: typing.Iterable[str],
                 but: 'Hosts | tuple[()]' = ()) -> None:
        self.patterns = tuple(patterns)
        self._but = but

    def __contains__(self, host: str) -> bool:
        return host not in self._but and any(
            fnmatch.fnmatchcase(host, pattern) for pattern in self.patterns)

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
