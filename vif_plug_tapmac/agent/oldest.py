# SPDX-License-Identifier: Apache-2.0

"""Which Neutron the agent is for: said before anything of one is loaded.

:raises ImportError: it is older, as where a package was installed in spite of
    what it depends on
"""

import contextlib
from importlib import metadata

_OLDEST = 28

with contextlib.suppress(metadata.PackageNotFoundError):
    _found = metadata.version('neutron')
    if int(_found.split('.')[0]) < _OLDEST:
        raise ImportError('tapmac-agent needs Neutron %d or newer, and this '
                          'is %s' % (_OLDEST, _found))
