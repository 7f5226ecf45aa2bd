# SPDX-License-Identifier: Apache-2.0

"""The options of [os_vif_tapmac]."""

import copy
import math
import os
import re
import typing

from oslo_config import cfg
from oslo_config import types

from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values
from vif_plug_tapmac.wanted import port_options

_LOCKED = next(each for each in port_options.TABLE if each.field == 'locked')
#: os-vif derives it from the name of our entry point.
GROUP = 'os_vif_tapmac'


class _Strict(types.Number):
    """A number that is one.

    What oslo.config has takes "nan" for a number within any limits, and an
    option without a value for None.
    """

    def __call__(self, value: typing.Any) -> int | float:
        found = super().__call__(value)
        if found is None or not math.isfinite(found):
            raise ValueError('Should be a number')
        return found


class _StrictInteger(_Strict, types.Integer):
    pass


class _StrictFloat(_Strict, types.Float):
    pass


_STRICT: dict[type, type[typing.Any]] = {
    types.Integer: _StrictInteger, types.Float: _StrictFloat}


def have_numbers(options: typing.Iterable[cfg.Opt]) -> None:
    """Have options that are numbers refuse what is none."""
    for opt in options:
        if isinstance(opt.type, types.Number):
            opt.type = _STRICT[type(opt.type)](min=opt.type.min,
                                               max=opt.type.max)


def _once_of_linux_bridge(name: str) -> list[cfg.DeprecatedOpt]:
    """Return where os-vif's own plugin linux_bridge had an option."""
    return [cfg.DeprecatedOpt(name, group=linux_bridge.GROUP),
            cfg.DeprecatedOpt(name, group='DEFAULT')]


def kernel_can_lock() -> bool:
    """Return whether ports of bridges can be locked, by the kernel's version.

    What a distribution took into an older one is not seen. There is no other
    way to know before there is a port, and none that both sides of the
    privilege boundary have alike.
    Source: Linux commit a21d9a670d81 ("net: bridge: Add support for bridge
    port in locked mode")
    """
    return _kernel() >= _LOCKED.since


def _kernel() -> tuple[int, int]:
    """Return the version of this kernel, as far as it matters."""
    version = re.match(r'([0-9]+)\.([0-9]+)', os.uname().release)
    return (0, 0) if version is None else (int(version[1]), int(version[2]))


def port_options_too_new(config: cfg.ConfigOpts.GroupAttr) -> list[str]:
    """Return in words which options of a port this kernel seems to lack.

    :param config: the ``[os_vif_tapmac]`` group
    """
    return ['%s = %s needs Linux %d.%d, and this is %s.'
            % (each.option, config[each.option], *each.since,
               os.uname().release)
            for each in port_options.TABLE
            if _kernel() < each.since and config[each.option] not in (
                each.initial, 'none')]


TAPMAC_OPTS = [
    cfg.StrOpt(
        'owner',
        default='root',
        help='The user, by name or uid (0 to 4294967294), who may attach to '
             'the TAPs that tapmac makes. It must be the user as whom libvirt '
             'opens them: root for the system libvirtd, whatever user QEMU '
             'runs as afterwards. There is no way to leave a TAP without '
             'owner, because every local user can attach to such a one.'),
    cfg.BoolOpt(
        'multiqueue',
        default=False,
        help='Make TAPs with several queues for VIFs that cannot say whether '
             'they need them (VIFBridge). A TAP opens in the queue mode it '
             'was made with and in no other, so switch this on if, and only '
             'if, every guest of this host asks for more than one queue.'),
    cfg.ListOpt(
        'claim_plugins',
        item_type=types.String(choices=names.CLAIMABLE),
        default=[],
        help='The os-vif plugins that tapmac answers for beside its own, '
             'because Nova names no others. ovs, for ports that the Neutron '
             'mechanism driver tapmac binds (Nova 33 or newer): all other '
             'VIFs of ovs go to os-vif\'s own plugin as before. linux_bridge, '
             'for ports of the binding type bridge (Nova 33 or older). Empty, '
             'so that nothing changes because tapmac is installed.'),
    cfg.BoolOpt(
        'nova_managed_tap',
        default=False,
        help='For VIFs of linux_bridge: make the TAP before the guest starts, '
             'and have Nova tell libvirt so (type ethernet, managed no). '
             'Otherwise libvirt makes the TAP, and tapmac the bridge only. '
             'Needs linux_bridge in claim_plugins, and Nova 33 or older. '
             'Switch it on on all hosts between which guests migrate live '
             'before any guest does, and while no guest is suspended; guests '
             'that run get it at their next hard reboot, and cannot be '
             'rescued before that.'),
    cfg.BoolOpt(
        'create_bridge',
        default=True,
        help='Make a bridge that a VIF names and that does not exist. Switch '
             'this off if every bridge of this host is made by its network '
             'configuration; a VIF on a missing bridge is then an error.'),
    cfg.DictOpt(
        'bridge_uplinks',
        default={},
        help='The device that connects each bridge with the wire, as in '
             'br100:eth1,br200:eth1.200. A bridge that tapmac makes gets it '
             'as a port, and its MAC; the device must have no IP addresses. '
             'It may be named by an alternative name that it has, of up to '
             '127 characters. '
             'eth1.200 is made if it is missing: VLAN 200 on eth1. Bridges '
             'of the host\'s own network configuration need no entry: they '
             'are used as they are. Without an entry, and without '
             'bridge_interface in the VIF\'s network, a bridge connects '
             'guests with each other only. The privileged daemon reads this '
             'option by itself.'),
    cfg.StrOpt(
        'vlan_bridge',
        default=names.VLAN_BRIDGE,
        help='How the bridge of a VLAN is named, with {bridge} for a bridge '
             'of bridge_uplinks and {vlan} for the number of the VLAN: '
             'br100-200 has the uplink eth1.200 if br100 has eth1, without '
             'an entry of its own. It must be the same as in '
             '[ml2_tapmac] of Neutron, which names these bridges.'),
    cfg.ListOpt(
        'allowed_uplinks',
        default=[],
        help='The devices, as shell patterns, that a VIF may name as the '
             'uplink of its bridge by the bridge_interface of its network, '
             'beside those of bridge_uplinks. Nova does not set it any more; '
             'allow what another os-vif client needs. The privileged daemon '
             'reads this option by itself, so that not even a compromised '
             'nova-compute gets hold of another device of the host.'),
    cfg.IntOpt(
        'link_group',
        default=29793,
        min=port_values.LINK_GROUP_MIN,
        max=port_values.LINK_GROUP_MAX,
        help='The link group number that all TAPs of tapmac are put in, as in '
             '"ip link show group 29793". Change it only where something else '
             'on this host uses this number. It must differ from '
             'bridge_group.'),
    cfg.IntOpt(
        'bridge_group',
        default=29794,
        min=port_values.LINK_GROUP_MIN,
        max=port_values.LINK_GROUP_MAX,
        help='The link group number of the bridges that tapmac makes. A '
             'bridge in this group without an alias was left half-made and is '
             'finished by the next plug, so never change it to a number that '
             'something else uses. Bridges that are there stay in the former '
             'group until "tapmac repair". Services of one host that share '
             'bridges need the same number. It must differ from '
             'link_group.'),
    cfg.IntOpt(
        'filtered_group',
        default=port_values.FILTERED_GROUP,
        min=port_values.LINK_GROUP_MIN,
        max=port_values.LINK_GROUP_MAX,
        help='The link group number of the TAPs whose guests are kept to '
             'their addresses (anti_spoofing = full), instead of link_group. '
             'The rules of the table "bridge tapmac" of nftables drop what '
             'comes from this group unless they allow it. It must differ from '
             'link_group and bridge_group, and from those of every other '
             'service on this host that has anti_spoofing = mac.'),
    cfg.IntOpt(
        'agent_group',
        default=port_values.AGENT_GROUP,
        min=port_values.LINK_GROUP_MIN,
        max=port_values.LINK_GROUP_MAX,
        help='The link group number of the TAPs whose guests are kept to '
             'their security groups (firewall = agent), instead of link_group '
             'and filtered_group. From and to a TAP in this group passes what '
             'the agent lets pass, and nothing else. It must differ from the '
             'other groups, and from those of every other service on this '
             'host.'),
    cfg.ListOpt(
        'allowed_bridges',
        default=['*'],
        help='The bridges that guests may be plugged into, as shell patterns: '
             '* for anything, ? for one character, [abc] for one of these. A '
             'VIF on any other bridge is an error. The privileged daemon '
             'reads this option by itself, so that not even a compromised '
             'nova-compute gets a TAP onto, say, a management bridge.'),
    cfg.StrOpt(
        'anti_spoofing',
        default='mac' if kernel_can_lock() else 'none',
        sample_default='mac',
        choices=port_values.ANTI_SPOOFING,
        help='What a guest is kept to. mac: it can send from the MAC of its '
             'port and from no other, and no frame from elsewhere takes that '
             'MAC away from it; the port on the bridge is locked, learns '
             'nothing, and has one fixed FDB entry. This needs Linux 5.18; a '
             'plug on a kernel that lacks it is an error. full: that, and it '
             'speaks only from the fixed IPs that its port has when it is '
             'plugged, in ARP and neighbour discovery, too; it is no DHCP '
             'server and no router, and sends no tags, BPDUs or other '
             'ethertypes, by rules in the table "bridge tapmac" of nftables. '
             'A guest that runs on a TAP of one queue that libvirt made is '
             'taken in; libvirt can make no new one. none: the guest can send '
             'as anybody. The default is mac from Linux 5.18 on, and '
             'none on older kernels, also on those whose distribution has '
             'added locked ports: set mac there. The log says at the start '
             'which one it is. A change concerns a running guest as soon as '
             'nova-compute starts again.'),
    cfg.StrOpt(
        'firewall',
        default='none',
        choices=port_values.FIREWALLS,
        help='Who keeps guests to the security groups of their ports. none: '
             'nobody. agent: a process on this host that calls itself an '
             'agent of Neutron, and feeds the table "bridge tapmac" of '
             'nftables. A new TAP is in agent_group, and passes nothing, in '
             'either direction, not even to and from this host, until the '
             'agent has said what may pass, whether it is late or dead. It '
             'also says which addresses the guest may speak from, so that '
             'anti_spoofing = full is included. A guest that runs when this '
             'is switched on, or off, goes on as before until its port is '
             'known, or plugged again. TAPs that libvirt makes are not '
             'filtered.'),
    cfg.StrOpt(
        'arriving_guests',
        default='filter',
        choices=port_values.ARRIVING_GUESTS,
        help='How anti_spoofing = mac is done for a guest that is heard from '
             'elsewhere when its TAP is made, as on the target of a live '
             'migration. filter: by a tc filter on the TAP, without lock and '
             'entry, until a plug finds that the guest was heard from here; '
             'nova-compute plugs when it starts. Other guests reach the guest '
             'all the time, but until that plug one false frame from the wire '
             'can draw its traffic away until it speaks again, and so can '
             'whatever removes the filter, as libvirt does for a guest with '
             'bandwidth limits. Needs sch_ingress and cls_bpf in the kernel; '
             'where it has not, guests are locked, and the log says so at the '
             'start. lock: as for any other guest. The fixed FDB entry then '
             'already sends what other guests of this host have for the guest '
             'to the TAP, so they do not reach it until it has arrived. Set '
             'this where nobody on the wire is to be believed.'),
    cfg.BoolOpt(
        'port_isolated',
        default=False,
        help='Guests of this host reach the uplink of their bridge and the '
             'host, but not each other. Replies that come back from the wire '
             'still reach them, so this keeps guests apart only where the '
             'network outside does so, too (private VLANs).'),
    cfg.BoolOpt(
        'port_flood_unicast',
        default=True,
        help='Guests are shown frames for MACs that the bridge does not know. '
             'Switch this off to have none of them see the traffic of others; '
             'with anti_spoofing = none, a guest that is silent for longer '
             'than the ageing time of the bridge (300 s) then gets no unicast '
             'until it speaks.'),
    cfg.BoolOpt(
        'port_flood_multicast',
        default=True,
        help='Guests get multicast of groups that nobody is known to have '
             'joined. Without multicast snooping, and the bridges that tapmac '
             'makes have none, that is all multicast: switched off, guests '
             'have no IPv6, which finds its neighbours by multicast.'),
    cfg.BoolOpt(
        'port_flood_broadcast',
        default=True,
        help='Guests get broadcast. Switched off, they hear no ARP requests '
             'and no DHCP server that answers by broadcast: only for guests '
             'that nobody has to find by IPv4, or where the network outside '
             'answers ARP for them. This needs Linux 4.12.'),
    cfg.BoolOpt(
        'port_hairpin',
        default=False,
        help='Frames of a guest may come back to it. Only for a guest that is '
             'itself a switch whose ports share one MAC (VEPA, macvlan); all '
             'others see their own broadcasts.'),
    cfg.BoolOpt(
        'host_shield',
        default=False,
        help='Guests do not reach this host through their bridge: no ARP, no '
             'IP to any address of the host, no router advertisement, nothing '
             'sent to the MAC of a TAP. They do reach each other and the '
             'uplink. By rules of nftables for the link groups of TAPs, in '
             'the tables "tapmac" of the families bridge, inet and arp, which '
             'each plug looks for, and in which each service of this host '
             'asks for its own. '
             'Not for hosts that serve their guests, as with DHCP, DNS or '
             'routing on the bridge. TAPs that libvirt makes are not in that '
             'group. Switched off again, it ends with the next plug after '
             'nova-compute was restarted.'),
    cfg.FloatOpt(
        'udev_timeout',
        default=5.0,
        min=0.0,
        max=600.0,
        help='How many seconds a plug waits at most for udev to have handled '
             'a new TAP, 0 to 600. udev may overwrite the MAC of a new device '
             '(MACAddressPolicy=persistent), so the MAC is verified after '
             'that. Where /run/udev/control does not exist there is no udev '
             'to wait for. Set this to 0, which is not to wait, where that '
             'file belongs to a udev that does not see the network namespace '
             'of nova-compute, as in some containers. The privileged daemon '
             'reads this option by itself.'),
    cfg.StrOpt(
        'flat_interface',
        default='',
        deprecated_opts=_once_of_linux_bridge('flat_interface'),
        help='The uplink of the bridge of a host that has one bridge only: '
             'whose allowed_bridges is one name, without wildcards. It is '
             'read from [os_vif_linux_bridge], too, and only with '
             'linux_bridge in claim_plugins. Where bridge_uplinks has that '
             'bridge, this is ignored. The privileged daemon reads this '
             'option by itself.'),
    cfg.StrOpt(
        'vlan_interface',
        default='',
        deprecated_opts=_once_of_linux_bridge('vlan_interface'),
        help='As flat_interface, for VIFs whose network has '
             'should_provide_vlan: with eth1 here, and vlan 200 there, the '
             'uplink is eth1.200. Nova does not set it any more. The '
             'privileged daemon reads this option by itself.'),
    cfg.IntOpt(
        'network_device_mtu',
        default=0,
        min=0,
        max=port_values.TAP_MTU_MAX,
        deprecated_opts=_once_of_linux_bridge('network_device_mtu'),
        help='The MTU, in bytes, of bridges and TAPs of a network that has '
             'none itself, 68 to 65521. It is read from '
             '[os_vif_linux_bridge], too, and only with linux_bridge in '
             'claim_plugins. 0 leaves it to the kernel, which gives them '
             '1500.'),
]
have_numbers(TAPMAC_OPTS)


def group(conf: cfg.ConfigOpts) -> cfg.ConfigOpts.GroupAttr:
    """Return our group of a configuration that may not know it yet."""
    # To register what is there already takes as long as four requests to the
    # kernel, and each plug comes here.
    if GROUP not in conf or TAPMAC_OPTS[-1].dest not in conf[GROUP]:
        conf.register_opts(TAPMAC_OPTS, group=GROUP)
    options: cfg.ConfigOpts.GroupAttr = conf[GROUP]
    return options


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return our options for oslo-config-generator."""
    return [(GROUP, copy.deepcopy(TAPMAC_OPTS))]
