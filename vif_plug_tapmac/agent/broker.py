# SPDX-License-Identifier: Apache-2.0

"""When the message queue was gone: what was sent meanwhile nobody will hear.

oslo.messaging connects again by itself, and its log is the only one it tells.
"""

import logging

from oslo_log import log

from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent.dirty import Dirty

#: Source: oslo_messaging/_drivers/impl_rabbit.py, Connection.ensure
_MODULE = 'oslo_messaging._drivers.impl_rabbit'
_BACK = 'Reconnected to AMQP server'


def listen(dirty: Dirty) -> None:
    """Have all marked from now on when a connection is there again."""
    # It has another name than the module.
    logger = log.getLogger(_MODULE).logger
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)

    def look(record: logging.LogRecord) -> bool:
        if _BACK in str(record.msg):
            dirty.add(Batch(resync=True))
        return True
    logger.addFilter(look)
