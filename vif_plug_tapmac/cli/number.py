# SPDX-License-Identifier: Apache-2.0

"""Numbers of the command line: what is none, or makes no sense, is refused."""

import argparse
import typing

_Number = typing.TypeVar('_Number', int, float)


def between(least: _Number, most: _Number,
            kind: type[_Number]) -> typing.Callable[[str], _Number]:
    """Return what argparse is to make a number with.

    :param least: what it may be at least
    :param most: what it may be at most
    :param kind: int for whole numbers, else float
    """
    def number(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        # Not the other way round: "nan" is neither less nor more.
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                '%r is no %snumber from %s to %s' % (
                    text[:40], 'whole ' if kind is int else '', least, most))
        return value
    return number
