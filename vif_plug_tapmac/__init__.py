# SPDX-License-Identifier: Apache-2.0

"""Guests' TAPs on Linux bridges, for OpenStack.

Loaded before all other modules, so an old Python is refused in words, and not
by syntax that it does not know.

:raises ImportError: Python is older than 3.10
"""

import sys

if sys.version_info < (3, 10):
    raise ImportError('vif_plug_tapmac needs Python 3.10 or newer, and this '
                      'is %d.%d' % tuple(sys.version_info[:2]))
