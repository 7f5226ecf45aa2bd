# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Nothing is lost, whatever fails.

The short form takes a part of the faults. TAPMAC_LONG=1 takes all of them;
with the name of a file instead of 1, what was counted is written there.
"""

import os
import pathlib

LONG = os.environ.get('TAPMAC_LONG', '0') not in ('', '0')
_NOTES = pathlib.Path(os.environ['TAPMAC_LONG']) if LONG else None


def tell(test, text):
    """Keep a result that is more than passed or failed."""
    if _NOTES and _NOTES.name != '1':
        with _NOTES.open('a') as notes:
            notes.write('%s: %s\n' % (test.id(), text))
