# SPDX-License-Identifier: Apache-2.0

"""Commands for operators.

oslo's libraries import eventlet where it is installed, used or not, and it
complains on standard error at import: hence here, before all other imports.
"""

import warnings

warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
