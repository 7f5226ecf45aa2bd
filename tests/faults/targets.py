# SPDX-License-Identifier: Apache-2.0

"""What is fuzzed: the parsers of what others write.

hypothesis does so in each run, atheris in the long form:
"python -m tests.faults.targets marks DIRECTORY -max_total_time=60".
"""

import contextlib
import sys

with_atheris = __name__ == '__main__'
if with_atheris:
    import atheris
    instrumented = atheris.instrument_imports(
        include=['vif_plug_tapmac'])
    instrumented.__enter__()

from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import rtnetlink  # noqa: E402
from vif_plug_tapmac.kernel import session
from vif_plug_tapmac import mark  # noqa: E402

#: What kernel/session.py makes errors of ours of.
EXPECTED = (OSError,) + session.GARBLED


def marks(data: bytes) -> None:
    """Any alias is a mark of ours, and then exactly what we write, or none."""
    alias = data.decode('utf-8', 'surrogateescape')
    found = mark.TapMark.parse(alias)
    if found is not None:
        again = mark.TapMark.parse(str(found))
        assert again == found, alias
        assert str(found).rpartition(':')[0] == alias.rpartition(':')[0], alias


def answers(data: bytes) -> None:
    """Any datagram is an answer, or a refusal that is expected."""
    for read in (Link.from_message, FdbEntry.from_message,
                 rtnetlink._require_success):
        with contextlib.suppress(*EXPECTED):
            for message in rtnetlink.messages(data):
                seen = read(message.body)
                if isinstance(seen, Link):
                    mark.TapMark.parse(seen.alias)
                    hash((seen.held, seen.name))


if with_atheris:
    instrumented.__exit__(None, None, None)
    target = {'marks': marks, 'answers': answers}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
