# SPDX-License-Identifier: Apache-2.0

"""One thing that is wrong: how bad it is, what was seen, and the remedy.

Each code has an entry in CODES, one in WHY, and a section in "Audit codes" of
the documentation.
"""

import dataclasses
import enum
import functools
import re
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
    'TM120': (Severity.WARNING, 'Rules of others are before an uplink'),
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
    'TM225': (Severity.WARNING, 'The MAC of a guest is heard on the wire'),
    'TM226': (Severity.WARNING, 'A rule keeps guests from this host for '
              'nobody'),
    'TM227': (Severity.ERROR, 'A guest is not kept to its addresses'),
    'TM228': (Severity.ERROR, 'A guest may not speak at all'),
    'TM229': (Severity.ERROR, 'A guest may speak as somebody else'),
    'TM230': (Severity.ERROR,
              'An interface of an agent is not as it is to be'),
    'TM233': (Severity.ERROR, 'A guest can not be kept to its addresses'),
    'TM234': (Severity.ERROR, 'The filter of a guest is switched off'),
    'TM235': (Severity.ERROR,
              'A guest is not kept to its security groups'),
    'TM236': (Severity.ERROR, 'The agent does not know a port'),
    'TM237': (Severity.WARNING, 'Old rules filter guests of the agent'),
    'TM240': (Severity.WARNING, 'A TAP is said to be another one'),
    'TM241': (Severity.ERROR, 'Somebody else filters the frames of a TAP'),
    'TM242': (Severity.WARNING, 'A TAP is throttled'),
    'TM243': (Severity.ERROR, 'The TAP of a guest is not here'),
    'TM301': (Severity.WARNING, 'The firewall stands between guests'),
    'TM302': (Severity.WARNING, 'A udev that is not seen rewrites MACs'),
    'TM303': (Severity.ERROR, 'Two os-vif plugins have one name'),
    'TM304': (Severity.WARNING, 'SELinux lacks the rule for TAPs'),
    'TM305': (Severity.ERROR, 'The TUN device is missing'),
    'TM306': (Severity.WARNING, 'No bridge can be made here'),
    'TM307': (Severity.ERROR, 'The configuration can not be used'),
    'TM308': (Severity.ERROR, 'Guests can reach this host'),
    'TM309': (Severity.WARNING, 'systemd-networkd takes ports off bridges'),
    'TM310': (Severity.WARNING, 'ifupdown2 takes ports off a bridge'),
    'TM311': (Severity.WARNING, 'NetworkManager manages what it should not'),
    'TM312': (Severity.ERROR, 'What keeps guests to their addresses is gone'),
    'TM313': (Severity.ERROR, 'The table of guests was changed'),
    'TM314': (Severity.ERROR, 'The link group of guests is open'),
    'TM315': (Severity.WARNING, 'nftables.service takes away the table of '
              'guests'),
    'TM316': (Severity.ERROR, 'The link group of the agent is open'),
    'TM317': (Severity.ERROR, 'The filter of this host is switched off'),
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
    'TM415': (Severity.WARNING, 'The MAC of a TAP may be that of its guest'),
}

#: Why it matters: what is lost, or may be, as long as it is so. One sentence
#: for each code.
WHY: dict[str, str] = {
    'TM101': 'When the MAC changes, all who talk to this host through the '
             'bridge are cut off until their ARP tables forget.',
    'TM102': 'Whoever made it was killed, and what protects this host from '
             'its guests may not be set there yet.',
    'TM103': 'No frame passes a bridge that is down.',
    'TM104': 'DHCP and cloud-init give up before a port forwards.',
    'TM105': 'The kernel has 1023 ports for a bridge, and the plug after the '
             'last one fails.',
    'TM106': 'If no other port leads to the same wire, guests reach each '
             'other and nobody else.',
    'TM107': 'One frame from a guest gives this host an address and a default '
             'route through the bridge.',
    'TM108': 'Larger frames between this host and the guest are lost, and '
             'nothing tells.',
    'TM109': 'By what was changed, guests may reach into this host, lose what '
             'is for them, or wait for their network.',
    'TM110': 'Its guests are on the network of somebody else.',
    'TM111': 'Larger frames between guests and the wire are lost, and nothing '
             'tells.',
    'TM112': 'When its link group is changed, too, nothing tells that tapmac '
             'made it.',
    'TM113': 'Two devices may share a MAC, and an uplink that was lost is not '
             'known again.',
    'TM114': 'This host takes what is for somebody else, who does not get it.',
    'TM115': 'No guest, or not each of them, reaches the wire.',
    'TM116': 'Guests reach each other and nobody else.',
    'TM117': 'Guests reach each other and nobody else.',
    'TM118': 'What comes from the wire goes elsewhere, and guests reach each '
             'other and nobody else.',
    'TM119': 'It is known by its mark only: when that is lost, too, nothing '
             'tells that tapmac made it.',
    'TM120': 'Guests may not get all that is sent to them, or others not what '
             'they send, or not from them.',
    'TM201': 'A bridge whose MAC is not fixed takes the lowest one of its '
             'ports.',
    'TM202': 'Broadcasts and pings from this host get through, so that all '
             'looks well from here.',
    'TM203': 'The bridge keeps what is for the MAC of one of its ports.',
    'TM204': 'A user of this host can read what the guest is sent, and send '
             'what he likes.',
    'TM205': 'Somebody else is on the network of the guest.',
    'TM206': 'What the guest sends goes nowhere.',
    'TM207': 'No frame passes a TAP that is down.',
    'TM208': 'What is lost is counted nowhere, and small frames get through, '
             'so that it looks like a fault of the guest.',
    'TM209': 'With an address on the TAP, this host speaks on the network of '
             'the guest.',
    'TM210': 'It takes a port of its bridge, and the next guest with its MAC '
             'may be refused.',
    'TM211': 'Commands and rules that take a whole link group take too much '
             'or too little.',
    'TM212': 'A TAP opens in the queue mode that it was made with and in no '
             'other.',
    'TM213': 'The guest can not open its TAP if it runs as the owner that is '
             'configured.',
    'TM214': 'A guest that can send from the MAC of another takes the traffic '
             'that is for it.',
    'TM215': 'The guest gets, or sends, what the configuration keeps from it, '
             'or lacks what that gives it.',
    'TM216': 'No frame gets to the guest, or from it.',
    'TM217': 'It has no name that libvirt could open, so its guest does not '
             'start.',
    'TM218': 'The guest is in the wrong network.',
    'TM219': 'Nothing tells for which port of Neutron the TAP is.',
    'TM220': 'The guest goes on, but does not start again, and Nova does not '
             'find the TAP to unplug it.',
    'TM221': 'The guest takes the traffic of others, and a lock of its port '
             'does not keep it from that.',
    'TM222': 'No frame gets to the guest, or from it.',
    'TM223': 'The guest may lose some of its frames.',
    'TM224': 'It sees each frame that the guest sends before anything else '
             'does.',
    'TM225': 'It takes the traffic of whoever uses that MAC there, as a '
             'gateway may.',
    'TM226': 'Guests in its link group do not reach this host, though no '
             'configuration says so.',
    'TM227': 'The guest can claim the addresses of others, answer DHCP, and '
             'send router advertisements.',
    'TM228': 'Each frame that the guest sends is dropped.',
    'TM229': 'The guest gets what is for the owner of the address.',
    'TM230': 'Guests get no addresses, metadata, or way out from the agent '
             'behind it.',
    'TM233': 'The guest can claim the addresses of others, answer DHCP, and '
             'send router advertisements.',
    'TM234': 'The guest can claim the addresses of others, answer DHCP, send '
             'router advertisements, and be reached by everybody.',
    'TM235': 'Whatever its groups say, all passes from and to the guest that '
             'its mode without an agent lets pass.',
    'TM236': 'Nothing passes from the guest, and nothing to it.',
    'TM237': 'What is allowed in Neutron from now on does not pass.',
    'TM240': 'The port of that name can not be plugged.',
    'TM241': 'It can let pass what the guest is kept from, have it elsewhere, '
             'or lose it.',
    'TM242': 'The guest is slower than its flavor says, or loses frames.',
    'TM243': 'The guest runs, and its NIC is dead.',
    'TM301': 'A policy that drops, as Docker sets it, cuts guests off from '
             'each other.',
    'TM302': 'The MAC of a TAP may be another one a moment after the plug.',
    'TM303': 'Nobody knows which of them Nova is served by.',
    'TM304': 'Guests do not start.',
    'TM305': 'No TAP can be made, so that no guest starts.',
    'TM306': 'The first plug on a bridge that is missing fails.',
    'TM307': 'Each plug fails, so that no guest starts.',
    'TM308': 'Guests reach what listens on this host, from which host_shield '
             'is to keep them.',
    'TM309': 'When it starts, as after an upgrade, all guests on the bridge '
             'are cut off until their next plug.',
    'TM310': 'With the next ifreload, guests on the bridge are cut off until '
             'their next plug.',
    'TM311': 'When it starts, the bridge is off the wire until the next plug.',
    'TM312': 'Guests can claim the addresses of others, answer DHCP, and send '
             'router advertisements.',
    'TM313': 'Guests may send what they must not, or be cut off.',
    'TM314': 'Guests can claim the addresses of others, answer DHCP, and send '
             'router advertisements.',
    'TM315': 'Whenever it starts or is reloaded, guests can do so, and reach '
             'this host in spite of host_shield, until the next plug.',
    'TM316': 'Whatever their groups say, all passes from and to guests.',
    'TM317': 'All guests can claim the addresses of others, answer DHCP, send '
             'router advertisements, and be reached by everybody.',
    'TM401': 'No guest can be plugged on it.',
    'TM402': 'After the next boot nobody makes it, unless the configuration '
             'says of what.',
    'TM403': 'Guests reach each other and nobody else.',
    'TM404': 'Guests would be on another VLAN than Neutron says, so they are '
             'not plugged.',
    'TM405': 'Without the agent, guests that start or move are not found from '
             'other hosts.',
    'TM406': 'Guests lose multicast that nobody joined, IPv6 neighbours among '
             'it.',
    'TM407': 'Each guest sees what is for the others.',
    'TM408': 'Guests reach this host by them.',
    'TM409': 'It has no owner, and goes on so until its instance is rebooted '
             'hard.',
    'TM410': 'The first plug keeps the guest to the MAC of its port, and cuts '
             'the others off.',
    'TM411': 'Whatever takes them away, the remedy of TM301 too, opens these '
             'guests to all.',
    'TM412': 'These guests are open to all today.',
    'TM413': 'What the filter keeps from the others gets to this guest, and '
             'from it.',
    'TM414': 'A guest that comes back is filtered as it was once.',
    'TM415': 'Nobody reaches such a guest by unicast until a plug sets it '
             'right.',
}

# In a remedy: what is in quotes, and begins as the name of a program does.
_COMMAND = re.compile('"([a-z][^"]*)"')


class Remedy(str):
    """What the operator can do, in words.

    A command is in double quotes, as it is to be typed. What has to be filled
    in is in angle brackets.
    """

    @property
    def parts(self) -> list[str]:
        """Words and commands in turn, words first and last; "" for none."""
        return _COMMAND.split(self)

    @property
    def commands(self) -> list[str]:
        """The commands in it, in their order."""
        return self.parts[1::2]


class Repair(Remedy):
    """"tapmac repair" mends it, and disturbs no guest by that."""

    @property
    def parts(self) -> list[str]:
        return ['', str(self), '']


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
    def why(self) -> str:
        return WHY[self.code]

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
