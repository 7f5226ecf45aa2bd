# SPDX-License-Identifier: Apache-2.0

"""Taking a TAP that libvirt made, and its guest runs on, for one of ours.

It can only be as it is: it goes with its guest, and nobody owns it. As long as
it is there nobody else can open it, for it has one queue, which is taken.
"""

import logging
import time

from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)


def is_of_libvirt(link: Link) -> bool:
    """Return whether a TAP is as libvirt makes it, and so held by a guest.

    One that tapmac makes has an owner before it has its name.
    """
    return (link.is_tap and not link.persistent and link.owner is None
            and not link.multi_queue)


def obstacle(link: Link) -> str | None:
    """Return why a TAP that a guest holds can not be one of ours, in words.

    Its name and bridge are for whoever knows which they are to be.

    :returns: None if it can
    """
    if link.multi_queue:
        return 'it has several queues, and others may open more'
    if link.persistent or link.owner is not None:
        return 'neither tapmac nor libvirt made it'
    return None


def new_mark(port: TapPort, link: Link, has_agent: bool,
             ) -> mark.TapMark | None:
    """Return the mark of a TAP that is adopted; None if it is not.

    Where its guest is kept to its addresses it must be known whose it is: it
    is in a link group that is closed. An agent knows by it which port it is
    to have.

    :param port: as the plug has it
    :param has_agent: whether an agent is to say what passes, as soon as it
        knows the port
    """
    if (not (port.is_filtered or has_agent) or not port.has_nova_name
            or not is_of_libvirt(link)):
        return None
    if port.is_filtered:
        LOG.info('%s, which libvirt made, is one of tapmac from now on, and '
                 'its guest is kept to its addresses', port.name)
    else:
        LOG.info('%s, which libvirt made, is one of tapmac from now on',
                 port.name)
    return mark.TapMark(port.vif_id, port.guest_mac, port.bridge,
                        int(time.time()))
