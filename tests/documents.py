# SPDX-License-Identifier: Apache-2.0

"""What the documents show in blocks: commands, files, lines of the log."""

import dataclasses
import pathlib
import re
import textwrap

from tests import base
from tests import patience

_SOURCE = base.CHECKOUT / 'doc' / 'source'
#: Deploying with Nova.
DEPLOYING = _SOURCE / 'deploying-with-nova.rst'
#: Bridges: uplinks, VLANs and MTU.
BRIDGES = _SOURCE / 'bridges.rst'
#: Migrating from os-vif's linux_bridge.
COMING = _SOURCE / 'coming-from-linux-bridge.rst'
#: Migrating from Neutron's Linux bridge agent.
ROAD = _SOURCE / 'coming-from-linux-bridge-agent.rst'
#: Getting started.
GETTING_STARTED = _SOURCE / 'getting-started.rst'
#: A cloud of your own.
CLOUD = _SOURCE / 'cloud.rst'
#: Troubleshooting.
TROUBLESHOOTING = _SOURCE / 'troubleshooting.rst'
#: Neutron: flat and VLAN provider networks.
PROVIDER = _SOURCE / 'provider-network.rst'
#: Security groups: tapmac-agent.
AGENT = _SOURCE / 'tapmac-agent.rst'
#: Security.
SECURITY = _SOURCE / 'security.rst'
DHCP = _SOURCE / 'dhcp-metadata-routers.rst'
AUDIT_CODES = _SOURCE / 'audit-codes.rst'
#: Configuration: all options.
CONFIGURATION = _SOURCE / 'configuration.rst'
#: What a plug fails with.
PLUG_ERRORS = _SOURCE / 'plug-errors.rst'
TAPMAC = _SOURCE / 'cli' / 'tapmac.rst'
#: Output for scripts.
OUTPUT = _SOURCE / 'cli' / 'output.rst'

_BLOCK = re.compile(
    r'^(?:\.\. Not in a cloud: (?P<why>.+(?:\n   .+)*)\n\n)?'
    r'\.\. code-block:: (?P<language>\S+)\n'
    r'(?P<options>(?:   :.*\n)*)\n'
    r'(?P<text>(?:   .*\n|\n)+)', re.MULTILINE)
_UNDERLINED = re.compile(r'^(?P<heading>\S.*)\n(?:===+|---+)$', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    :param section: the heading that it is below, whatever the level
    :param language: as in ``.. code-block:: language``
    :param options: the lines of options of the directive, if any
    :param text: without the indentation
    :param elsewhere: why nobody can run it in the cloud of tools/cloud.sh, by
        the comment before it; None: who has one can
    """
    section: str
    language: str
    options: str
    text: str
    elsewhere: str | None = None


def blocks(document: pathlib.Path) -> list[Block]:
    """Return the code blocks of a document, in their order."""
    text = document.read_text()
    headings = list(_UNDERLINED.finditer(text))
    return [
        Block([heading['heading'] for heading in headings
               if heading.end() < found.start()][-1],
              found['language'], found['options'],
              textwrap.dedent(found['text']).strip('\n') + '\n',
              found['why'])
        for found in _BLOCK.finditer(text)]


def block(document: pathlib.Path, word: str,
          language: str | None = None) -> str:
    """Return the one code block of a document that has this word.

    :param language: of the block, None: any
    """
    found, = (each.text for each in blocks(document)
              if word in each.text and language in (None, each.language))
    return found


def patient(commands: str) -> str:
    """Return commands that wait for a guest as long as anything may take.

    A reader has a machine that does nothing else.
    """
    return re.sub(r'\bping -c 3 -w 90 ', 'ping -c 3 -w %d ' % patience.HANG,
                  commands)


def rows(document: pathlib.Path, title: str) -> list[list[str]]:
    """Return the cells of a list-table, row by row, without its header.

    Without markup for literals, and each as one line.
    """
    text, = re.findall(
        r'^\.\. list-table:: %s\n(?:   :.*\n)*\n((?:   .*\n|\n)+)'
        % re.escape(title), document.read_text(), re.MULTILINE)
    return [
        [re.sub(r'\s+', ' ', cell).strip().replace('``', '')
         for cell in re.split(r'^     - ', row, flags=re.MULTILINE)]
        for row in re.split(r'^   \* - ', text, flags=re.MULTILINE)[2:]]


def log_lines(section: str | None = None) -> list[str]:
    """Return the lines of the log that the documents quote.

    Each as one line: level, logger and message.

    :param section: of a document; None: all
    """
    return [line for document in (DEPLOYING, PROVIDER, AGENT, DHCP)
            for each in blocks(document)
            if ':class: log\n' in each.options
            and section in (None, each.section)
            for line in re.sub(r'\n +', ' ', each.text).splitlines()]


def without_chance(line: str) -> str:
    """Return a line of the log without the MACs and names that are random.

    And without times, who did something, and releases.
    """
    line = re.sub(r'after \d+ ms$', 'after ... ms', line)
    line = re.sub(r'times in [-e.\d]+ s', 'times in ... s', line)
    line = re.sub(r'\w+ \(process \d+\)', '...', line)
    line = re.sub(r'version \d+, and this one makes \d+', '...', line)
    line = re.sub(r'\b02(:[0-9a-f]{2}){5}\b', '02:...', line)
    return re.sub(r'\btapmac-[0-9a-f]{8}\b', 'tapmac-...', line)
