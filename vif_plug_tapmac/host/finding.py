# SPDX-License-Identifier: Apache-2.0

"""One thing that is wrong: how bad it is, what was seen, and the remedy.

Each code has a section in "Audit codes" of the documentation.
"""

import dataclasses
import enum
import functools
import typing

from vif_plug_tapmac import exception


class Severity(enum.IntEnum):
    """How bad it is; the number is the exit status of an audit."""
    WARNING = 10
    ERROR = 20

    def __str__(self) -> str:
        return self.name.lower()


#: What each code means. A code is never used for something else again.
CODES: dict[str, tuple[Severity, str]] = {
    'TM101': (Severity.WARNING, 'The MAC of a bridge is not fixed'),
    'TM102': (Severity.WARNING, 'A bridge is half-made'),
    'TM103': (Severity.ERROR, 'A bridge is down'),
    'TM104': (Severity.WARNING, 'A bridge runs STP with a delay'),
    'TM105': (Severity.WARNING, 'A bridge is nearly full'),
    'TM106': (Severity.WARNING, 'A bridge lacks its uplink'),
    'TM107': (Severity.WARNING, 'Guests can give the host IPv6 routes'),
    'TM108': (Severity.WARNING, 'The MTU of a bridge is too small'),
    'TM109': (Severity.ERROR, 'A bridge of tapmac was changed'),
    'TM110': (Severity.ERROR, 'The uplink of a bridge is another VLAN'),
    'TM111': (Severity.WARNING, 'The MTU of an uplink is too small'),
    'TM112': (Severity.WARNING, 'The mark of a bridge is lost'),
    'TM113': (Severity.WARNING, 'A bridge of tapmac has another MAC'),
    'TM114': (Severity.ERROR, 'A bridge keeps what is for others'),
    'TM115': (Severity.ERROR, 'The port of an uplink was changed'),
    'TM116': (Severity.ERROR, 'The uplink of a bridge is down'),
    'TM117': (Severity.ERROR, 'The uplink of a bridge has no carrier'),
    'TM118': (Severity.ERROR, 'The uplink of a bridge is in another'),
    'TM119': (Severity.WARNING, 'A bridge is in another link group'),
    'TM201': (Severity.WARNING, 'The MAC of a TAP is not that of its guest'),
    'TM202': (Severity.ERROR, 'A TAP has the MAC of its own guest'),
    'TM203': (Severity.ERROR, 'The MAC of a guest is that of another TAP'),
    'TM204': (Severity.ERROR, 'A TAP is open to every user'),
    'TM205': (Severity.ERROR, 'Somebody else holds the TAP of a guest'),
    'TM206': (Severity.ERROR, 'A TAP is on no bridge'),
    'TM207': (Severity.ERROR, 'A TAP is down'),
    'TM208': (Severity.WARNING, 'The MTU of a TAP is too small'),
    'TM209': (Severity.WARNING, 'A TAP has IPv6 or IPv4 of the host'),
    'TM210': (Severity.WARNING, 'A TAP is left over'),
    'TM211': (Severity.WARNING, 'Mark and link group do not match'),
    'TM212': (Severity.ERROR, 'A TAP has the wrong queue mode'),
    'TM213': (Severity.WARNING, 'A TAP has another owner than configured'),
    'TM214': (Severity.ERROR, 'A guest is not kept to its MAC'),
    'TM215': (Severity.WARNING, 'The port of a TAP is not as configured'),
    'TM216': (Severity.ERROR, 'A TAP is in no VLAN'),
    'TM217': (Severity.ERROR, 'A TAP is half-deleted'),
    'TM218': (Severity.ERROR, 'A TAP is on another bridge than it belongs'),
    'TM219': (Severity.WARNING, 'The mark of a TAP is lost'),
    'TM220': (Severity.WARNING, 'A TAP was renamed'),
    'TM221': (Severity.ERROR, 'The port of a TAP has MACs of others'),
    'TM222': (Severity.ERROR, 'The port of a TAP does not forward'),
    'TM223': (Severity.WARNING, 'A TAP was changed'),
    'TM224': (Severity.ERROR, 'A program looks at the frames of a TAP'),
    'TM226': (Severity.WARNING, 'A rule keeps guests from this host for '
              'nobody'),
    'TM301': (Severity.WARNING, 'The firewall stands between guests'),
    'TM302': (Severity.WARNING, 'A udev that is not seen rewrites MACs'),
    'TM303': (Severity.ERROR, 'Two os-vif plugins have one name'),
    'TM304': (Severity.WARNING, 'SELinux lacks the rule for TAPs'),
    'TM305': (Severity.ERROR, 'The TUN device is missing'),
    'TM306': (Severity.WARNING, 'No bridge can be made here'),
    'TM307': (Severity.ERROR, 'The configuration can not be used'),
    'TM308': (Severity.ERROR, 'Guests can reach this host'),
    'TM401': (Severity.ERROR, 'No port can be on a bridge of this name'),
    'TM402': (Severity.ERROR, 'A bridge was made by an agent that goes'),
    'TM403': (Severity.WARNING, 'A bridge has no uplink'),
    'TM404': (Severity.ERROR, 'An uplink has the name of another VLAN'),
    'TM405': (Severity.ERROR, 'A bridge leads into a tunnel of an agent'),
    'TM406': (Severity.WARNING, 'A bridge keeps multicast back'),
    'TM407': (Severity.WARNING, 'A bridge learns no MACs'),
    'TM408': (Severity.WARNING, 'This host has addresses on a bridge'),
    'TM409': (Severity.WARNING, 'A TAP is not one of tapmac'),
    'TM410': (Severity.ERROR, 'A guest sends from MACs that are not its own'),
    'TM411': (Severity.ERROR, 'Guests have no filter but old rules'),
    'TM412': (Severity.ERROR, 'The filter of guests is off'),
    'TM413': (Severity.ERROR, 'A guest came after the rules'),
    'TM414': (Severity.WARNING, 'Rules of guests are left over'),
}


class Remedy(str):
    """What the operator can do, in words."""


class Repair(Remedy):
    """"tapmac repair" mends it, and disturbs no guest by that."""


REPAIR = Repair('tapmac repair')
REBOOT = Remedy('hard reboot the instance, or detach and attach the interface')
REPLUG = Remedy('start nova-compute again, which plugs each guest')


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    :param code: of :data:`CODES`
    :param device: what it concerns: a link's name, a path, a plugin
    :param evidence: what was seen
    :param remedy: what the operator can do
    """
    code: str
    device: str
    evidence: str
    remedy: Remedy

    @property
    def severity(self) -> Severity:
        return CODES[self.code][0]

    @property
    def meaning(self) -> str:
        return CODES[self.code][1]

    @property
    def mendable(self) -> bool:
        """Whether "tapmac repair" mends it, and disturbs no guest by it."""
        return isinstance(self.remedy, Repair)


Findings = typing.Iterator[Finding]
#: What a check yields: a device, the evidence, and a remedy in words.
Seen = typing.Iterator[tuple[str, str, str]]
_Arguments = typing.ParamSpec('_Arguments')


def finds(code: str) -> typing.Callable[
        [typing.Callable[_Arguments, Seen]],
        typing.Callable[_Arguments, Findings]]:
    """Have a check carry the code of what it finds.

    One that fails is a finding itself, for nobody knows: it ends no other.

    :param code: of :data:`CODES`
    """
    def carry(check: typing.Callable[_Arguments, Seen],
              ) -> typing.Callable[_Arguments, Findings]:
        @functools.wraps(check)
        def find(*args: _Arguments.args,
                 **kwargs: _Arguments.kwargs) -> Findings:
            try:
                for device, evidence, remedy in check(*args, **kwargs):
                    yield Finding(code, device, evidence, remedy if isinstance(
                        remedy, Remedy) else Remedy(remedy))
            except (exception.TapMacError, OSError) as error:
                yield Finding(
                    code, _device(args), 'whether it is so could not be seen: '
                    '%s' % error, Remedy('see to what the error says'))
        return find
    return carry


def _device(looked_at: typing.Iterable[object]) -> str:
    """Return the name of the link among what a check looks at."""
    for each in looked_at:
        name = getattr(getattr(each, 'link', each), 'name', None)
        if isinstance(name, str):
            return name
    return 'this host'


def exit_status(findings: typing.Iterable[Finding]) -> int:
    """Return the exit status that says how bad it is: 0, 10 or 20."""
    return max((finding.severity for finding in findings), default=0)
