# SPDX-License-Identifier: Apache-2.0

"""Draws the picture of the README: which processes there are, and as whom.

``python doc/source/host_picture.py`` writes it anew; a build of the
documentation fails where what is there is another.
"""

import pathlib

import drawsvg

#: What a package index, and a git forge, show beside the README.
PATH = pathlib.Path(__file__).parent / 'host-picture.svg'

_TEXT, _LINE, _FRAME = '#222222', '#555555', '#999999'
_OURS, _THEIRS, _KERNEL = '#dcefdc', '#eef1f5', '#fdf3d8'
_WIDTH, _HEIGHT = 800, 600


def drawn() -> str:
    """Return the picture as SVG."""
    picture = drawsvg.Drawing(_WIDTH, _HEIGHT)
    picture.append(drawsvg.Rectangle(0, 0, _WIDTH, _HEIGHT, fill='white'))
    _key(picture)
    _frame(picture, 45, 85, 'controller')
    _box(picture, 40, 70, 330, _THEIRS, 'neutron-server', 'user neutron')
    _box(picture, 190, 70, 180, _OURS, 'driver tapmac', 'binds ports')
    _frame(picture, 165, 415, 'hypervisor')
    for left, colour, name, who in (
            (40, _THEIRS, 'nova-compute', 'user nova'),
            (410, _OURS, 'tapmac-agent', 'user neutron; optional')):
        _box(picture, left, 195, 350, colour, name, who)
    _box(picture, 210, 195, 180, _OURS, 'plugin tapmac', 'os-vif')
    _box(picture, 40, 300, 350, _OURS, 'privileged daemon',
         'root, CAP_NET_ADMIN: makes and removes TAPs')
    _box(picture, 410, 300, 350, _OURS, 'privileged daemon',
         'root, CAP_NET_ADMIN: rules of these TAPs')
    _box(picture, 40, 405, 160, _THEIRS, 'instance', 'libvirt, QEMU')
    _box(picture, 220, 405, 170, _KERNEL, 'TAP', 'fe:16:3e:28:64:c2')
    _box(picture, 410, 405, 350, _KERNEL, 'table bridge tapmac',
         'nftables: addresses, security groups')
    _box(picture, 40, 500, 350, _KERNEL, 'bridge br100',
         'its MAC is fixed; a port is locked to its guest')
    _box(picture, 410, 500, 350, _KERNEL, 'eth1, the uplink',
         'a card, a bond or a VLAN, to the switch')
    for points in ((115, 124, 115, 195), (370, 97, 585, 97),
                   (585, 97, 585, 195), (585, 249, 585, 300),
                   (295, 249, 295, 300), (305, 354, 305, 405),
                   (585, 354, 585, 405), (200, 432, 220, 432),
                   (390, 432, 410, 432), (305, 459, 305, 500),
                   (390, 527, 410, 527)):
        _line(picture, *points)
    for words, x, y in (
            ('REST API: how the port is bound', 125, 153),
            ('RPC, by the message queue', 410, 90),
            ('oslo.privsep', 305, 280), ('oslo.privsep', 595, 280)):
        _say(picture, words, x, y, size=13)
    return str(picture.as_svg())


def draw() -> None:
    """Write the picture, if that changes anything."""
    if not is_drawn():
        PATH.write_text(drawn())


def is_drawn() -> bool:
    """Return whether the picture that is there is the one of this source."""
    return PATH.exists() and PATH.read_text() == drawn()


def _key(picture):
    """Say whose a box is, by its colour."""
    for left, colour, name in ((20, _OURS, 'of this package'),
                               (190, _THEIRS, 'of OpenStack, libvirt'),
                               (380, _KERNEL, 'of the kernel')):
        picture.append(drawsvg.Rectangle(left, 12, 20, 16, fill=colour,
                                         stroke=_LINE))
        _say(picture, name, left + 28, 25, size=13)


def _frame(picture, top, height, name):
    picture.append(drawsvg.Rectangle(
        20, top, _WIDTH - 40, height, rx=8, fill='none', stroke=_FRAME,
        stroke_dasharray='6 4'))
    _say(picture, name, _WIDTH - 30, top + 20, size=13, anchor='end')


def _box(picture, left, top, width, colour, name, more):
    """Draw a box of two lines.

    :param more: what is below its name
    """
    picture.append(drawsvg.Rectangle(
        left, top, width, 54, rx=6, fill=colour, stroke=_LINE,
        stroke_width=1.5))
    _say(picture, name, left + 12, top + 22, size=14, weight='bold')
    _say(picture, more, left + 12, top + 42, size=13)


def _line(picture, x1, y1, x2, y2):
    picture.append(drawsvg.Line(x1, y1, x2, y2, stroke=_LINE, stroke_width=2))


def _say(picture, text, x, y, size, weight='normal', anchor='start'):
    picture.append(drawsvg.Text(
        text, size, x, y, fill=_TEXT, font_family='sans-serif',
        font_weight=weight, text_anchor=anchor))


if __name__ == '__main__':
    draw()
