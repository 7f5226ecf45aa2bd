# SPDX-License-Identifier: Apache-2.0

"""What the commands tell of a finding."""

import typing

from vif_plug_tapmac.host.finding import Finding

#: What is told of each, and what of that scripts only want.
COLUMNS = ('Code', 'Severity', 'Device', 'Meaning', 'Why', 'Evidence',
           'Remedy', 'Commands', 'Mendable')
FOR_SCRIPTS = ('Why', 'Commands', 'Mendable')


def describe(finding: Finding) -> tuple[typing.Any, ...]:
    """Return what a finding has in each of :data:`COLUMNS`."""
    return (finding.code, str(finding.severity), finding.device,
            finding.meaning, finding.why, finding.evidence,
            str(finding.remedy), finding.remedy.commands, finding.mendable)


def as_dict(finding: Finding) -> dict[str, typing.Any]:
    """Return the same by the names of the columns."""
    return dict(zip(COLUMNS, describe(finding)))


def sentence(finding: Finding) -> str:
    """Return a finding in a line."""
    return '%s %s: %s. Remedy: %s' % (finding.code, finding.device,
                                      finding.evidence, finding.remedy)
