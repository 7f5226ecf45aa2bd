# SPDX-License-Identifier: Apache-2.0

"""Draws the picture of the page on MAC addresses."""

import pathlib

import drawsvg

_TEXT = '#222222'
_GOOD, _BAD, _PLAIN = '#dcefdc', '#f6d5d0', '#eef1f5'
_LINE = '#555555'
_WIDTH, _HEIGHT = 760, 520


def draw(path: pathlib.Path) -> None:
    """Write the picture as SVG, if that changes anything."""
    picture = drawsvg.Drawing(_WIDTH, _HEIGHT)
    picture.append(drawsvg.Rectangle(0, 0, _WIDTH, _HEIGHT, fill='white'))
    _host(picture, 0, 'With tapmac: the bridge keeps its MAC',
          ('TAP', 'fe:16:3e:28:64:c2', _GOOD),
          ('br100', '52:54:00:12:34:56, fixed', _GOOD),
          'A guest comes or goes, and nothing changes for anybody.')
    _host(picture, 265, 'A low MAC on the TAP, and a bridge without a fixed '
                        'one',
          ('TAP', '0e:16:3e:28:64:c2', _BAD),
          ('br100', '0e:16:3e:28:64:c2, until the guest goes', _BAD),
          'When it goes, whoever talks to the host sends to a MAC that '
          'nobody has.')
    text = picture.as_svg()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _host(picture, top, title, tap, bridge, caption):
    """Draw a guest, its TAP, the bridge and the uplink, one below another.

    :param tap: its name, its MAC and its colour; so is bridge
    """
    _say(picture, title, 20, top + 30, size=17, weight='bold')
    boxes = ((20, 'guest', 'fa:16:3e:28:64:c2', _PLAIN), (270, *tap),
             (520, 'eth1, the uplink', '52:54:00:12:34:56', _PLAIN))
    for left, name, mac, colour in boxes:
        _box(picture, left, top + 55, 220, name, mac, colour)
    name, mac, colour = bridge
    _box(picture, 270, top + 155, 470, name, mac, colour)
    for points in (((240, 82), (270, 82)), ((380, 109), (380, 155)),
                   ((630, 109), (630, 155))):
        (x1, y1), (x2, y2) = points
        picture.append(drawsvg.Line(x1, top + y1, x2, top + y2,
                                    stroke=_LINE, stroke_width=2))
    _say(picture, caption, 20, top + 240, size=14)


def _box(picture, left, top, width, name, mac, colour):
    picture.append(drawsvg.Rectangle(
        left, top, width, 54, rx=6, fill=colour, stroke=_LINE,
        stroke_width=1.5))
    _say(picture, name, left + 12, top + 22, size=14, weight='bold')
    _say(picture, mac, left + 12, top + 43, size=14, family='monospace')


def _say(picture, text, x, y, size, family='sans-serif', weight='normal'):
    picture.append(drawsvg.Text(
        text, size, x, y, fill=_TEXT, font_family=family,
        font_weight=weight))
