# SPDX-License-Identifier: Apache-2.0

"""Links and forwarding entries, as the kernel tells and takes them."""

import errno
import socket
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.address import Address
from vif_plug_tapmac.kernel.address import SCOPE_HOST
from vif_plug_tapmac.kernel.address import SCOPE_LINK
from vif_plug_tapmac.kernel import fdb
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import new_link
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import session
from vif_plug_tapmac.kernel import settings
from vif_plug_tapmac.wanted import names

#: How often to rename a link that others bring up all the time.
_RENAMINGS = 5


class Netlink(session.Session):
    """What there is to ask, and to tell, of links."""

    def find(self, name: str, device: str | None = None) -> Link | None:
        """Return the link of this name, None if there is none.

        :param device: what errors shall call it, if not so
        :raises DeviceConflict: the name is an alternative name of another
            link. The kernel looks both up alike, so that whoever asks for one
            gets, and changes, the other.
        """
        link = self._get(device or name, 0, link_data.named(name))
        if link is not None and link.name != name:
            raise exception.DeviceConflict(
                device=name,
                reason='this is an alternative name of %s' % link.name,
                remedy='remove it with "ip link property del dev %s altname '
                       '%s", or use another name' % (link.name, name))
        return link

    def find_by_any_name(self, name: str) -> Link | None:
        """Return the link of this name, or that has it beside its own.

        :param name: of more than 15 characters, it can be an alternative one
            only, which kernels have since Linux 5.5
        """
        if len(name) <= names.DEVICE_NAME_MAX:
            return self._get(name, 0, link_data.named(name))
        try:
            return self._get(name, 0, link_data.also_named(name))
        except exception.KernelRefused as error:
            if error.kwargs.get('code') in (errno.EINVAL, errno.EOPNOTSUPP):
                return None
            raise

    def find_being_deleted(self, name: str) -> Link | None:
        """Return the link that had this name until it was to be deleted."""
        return self.find_by_any_name(names.being_deleted(name))

    def get(self, index: int, device: str | None = None) -> Link | None:
        """Return the link with this index, None if there is none.

        :param device: what errors shall call it, if somebody knows
        """
        return self._get(device or 'link %d' % index, index)

    def _get(self, device: str, index: int, *parts: bytes) -> Link | None:
        return self.ask(
            device, 'looking it up', rtnetlink.GET_LINK,
            rtnetlink.link(index, *parts, link_data.WITHOUT_STATISTICS),
            rtnetlink.NEW_LINK, Link.from_message, tolerated=errno.ENODEV)

    def links(self) -> list[Link]:
        """Return all links, for those who look at a whole host."""
        return self.list('the host', 'listing its links', rtnetlink.GET_LINK,
                         rtnetlink.link(0, link_data.WITHOUT_STATISTICS),
                         Link.from_message)

    def all_addresses(self) -> dict[int, list[str]]:
        """Return the IP addresses of all links, by their index."""
        found: dict[int, list[str]] = {}
        for address in self.list(
                'the host', 'listing its addresses', rtnetlink.GET_ADDRESS,
                rtnetlink.address(0, socket.AF_UNSPEC, 0),
                Address.from_message):
            if address.is_ip:
                found.setdefault(address.link_index, []).append(str(address))
        return found

    def create_bridge(self, name: str, mac: str, group: int,
                      mtu: int | None) -> bool:
        """Make a bridge that is silent and has its MAC for good.

        All in one message, so nobody ever sees the bridge otherwise: the
        address given here pins it, and neither udev nor a port moves it. The
        MTU given here does not pin itself; see kernel/bridge.py.

        :returns: False if the name was taken already
        """
        return self._create(name, 'creating the bridge',
                            new_link.new_bridge(name, mac, group, mtu))

    def create_vlan(self, name: str, parent: Link, vlan: int) -> bool:
        """Make the device of a VLAN, with the MTU of its parent.

        :param vlan: from 1 to 4094
        :returns: False if the name was taken already, or the VLAN is there
            under another
        """
        return self._create(
            name, 'creating the device of VLAN %d on %s' % (vlan, parent.name),
            new_link.new_vlan(name, parent.index, vlan))

    def create_cable(self, name: str) -> bool:
        """Make a pair of devices, each of which is the other's wire.

        :param name: of the one; the kernel names the other
        :returns: False if the name was taken already
        """
        return self._create(name, 'creating a veth pair',
                            new_link.new_cable(name))

    def _create(self, name: str, step: str, body: bytes) -> bool:
        """Make a link; return False if the name was taken already."""
        return self.set(name, step, rtnetlink.NEW_LINK, body,
                        rtnetlink.CREATE | rtnetlink.EXCLUSIVE,
                        tolerated=errno.EEXIST)

    def change(self, link: Link, fields: dict[str, typing.Any],
               step: str | None = None) -> None:
        """Set fields of a link.

        "up" goes in a message after all others: in one message the kernel
        raises the link first, and with carrier gives it an IPv6 address before
        addr_gen_mode can say otherwise. The options of a port go with it: they
        need a bridge, so they cannot go with the master, and in one message
        with "up" they come first.
        Source: net/core/rtnetlink.c, rtnl_changelink

        :param fields: of :class:`Link`: flags, those in tables of
            kernel/settings.py, and in _ATTRIBUTES of kernel/link.py
        :param step: what this is for, in words for the error; None names the
            fields
        """
        early = link_data.settings(fields)
        late = link_data.port_settings(fields)
        step = step or 'setting ' + ', '.join(fields)
        name = fields.get('name', link.name)
        if early:
            self._set(link.index, name, step, early)
        if late or any(field in fields for field in settings.FLAGS):
            self._set(link.index, name, step, late, fields)

    def _set(self, index: int, name: str, step: str,
             attributes: typing.Iterable[bytes],
             fields: typing.Mapping[str, typing.Any] = {}) -> None:
        """Change a link.

        :param name: for the error
        :param fields: of these, those that are flags
        """
        flags, change = settings.write_flags(fields)
        self.set(name, step, rtnetlink.NEW_LINK, rtnetlink.link(
            index, *attributes, flags=flags, change=change))

    def mark_deletion(self, link: Link, name: str, begins: bool) -> None:
        """Have a link say by an alternative name that it is to be deleted.

        Or say so no more. That it did before, that it does not, and that the
        kernel knows no such names, is success.

        :param name: the one that it has, or had
        """
        try:
            self.set(name, 'noting that it is to be deleted' if begins
                     else 'noting that it stays',
                     rtnetlink.NEW_PROPERTY if begins
                     else rtnetlink.DELETE_PROPERTY,
                     rtnetlink.link(link.index, link_data.alternative_name(
                         names.being_deleted(name))))
        except exception.KernelRefused as error:
            if error.kwargs.get('code') not in (
                    errno.EEXIST, errno.ENOENT, errno.EOPNOTSUPP):
                raise

    def rename(self, link: Link, name: str, device: str,
               group: int | None = None) -> None:
        """Give a link another name, whether it is up or not.

        Name and group change at one time: nobody ever sees one without the
        other.

        :param device: what errors shall call it
        :param group: link group; None: the one that it has
        """
        fields = {'name': name} if group is None else {
            'name': name, 'group': group}
        attributes = link_data.settings(fields)
        step = 'renaming it from %s to %s' % (link.name, name)
        up: dict[str, bool] = {}
        for _ in range(_RENAMINGS):
            try:
                self._set(link.index, device, step, attributes, up)
                return
            except exception.KernelRefused as error:
                if error.kwargs.get('code') != errno.EBUSY:
                    raise
                refusal = error
            # Before Linux 6.2 a link that is up keeps its name, and whoever
            # plugs it meanwhile brings it up.
            self._set(link.index, device, step, [], {'up': False})
            up = {'up': True}
        self._set(link.index, device, step, [], {'up': True})
        raise refusal

    def change_named(self, name: str, device: str, step: str,
                     *attributes: bytes,
                     tolerated: int | None = None) -> bool | None:
        """Set something of the link that has this name now, and of no other.

        Which of the two it is, and the change, are one step to all others.

        :param tolerated: the errno of a refusal that is an answer
        :returns: False if it is refused so; None if no link has the name
        """
        try:
            return self.set(device, step, rtnetlink.SET_LINK, rtnetlink.link(
                0, link_data.named(name), *attributes), tolerated=tolerated)
        except exception.KernelRefused as error:
            if error.kwargs.get('code') == errno.ENODEV:
                return None
            raise

    def is_attached(self, name: str, device: str) -> bool | None:
        """Return whether a process has a queue of this TAP.

        Also where its carrier was switched off, by an administrator or by the
        process: the kernel switches it on for a TAP with a queue only. It is
        switched off again then.
        Source: drivers/net/tun.c, tun_net_change_carrier (Linux 5.0)

        :param name: which it has now
        :returns: None if no link has the name
        """
        attached = self.change_named(
            name, device, 'looking for a process that holds it',
            link_data.carrier(True), tolerated=errno.EPERM)
        if attached:
            self.change_named(name, device, 'switching its carrier off again',
                              link_data.carrier(False))
        return attached

    def delete_named(self, name: str, device: str) -> bool:
        """Delete the link that has this name now, and no other.

        :returns: False if no link has it
        """
        return self.set(device, 'deleting it', rtnetlink.DELETE_LINK,
                        rtnetlink.link(0, link_data.named(name)),
                        tolerated=errno.ENODEV)

    def delete(self, link: Link) -> None:
        """Delete a link by its index; gone already is success."""
        self.set(link.name, 'deleting it', rtnetlink.DELETE_LINK,
                 rtnetlink.link(link.index), tolerated=errno.ENODEV)

    def delete_group(self, group: int) -> None:
        """Delete all links of a link group, in one message.

        Whoever is in it, and whoever joins it meanwhile; nobody is success.
        """
        self.set('link group %d' % group, 'deleting it',
                 rtnetlink.DELETE_LINK,
                 rtnetlink.link(0, *link_data.settings({'group': group})),
                 tolerated=errno.ENODEV)

    def remove_addresses(self, link: Link) -> None:
        """Take all IP addresses from a link."""
        for address in self._addresses(link):
            self.set(link.name, 'removing its address',
                     rtnetlink.DELETE_ADDRESS, address.to_body(),
                     tolerated=errno.EADDRNOTAVAIL)

    def fdb_entry(self, bridge: Link, mac: str) -> FdbEntry | None:
        """Return where the bridge sends frames for a MAC; None: everywhere.

        One look-up in the kernel's hash table, whatever the number of ports.
        A bridge that filters VLANs learns in these: there the VLAN that its
        ports have by default is looked up, too.
        """
        found = self._fdb_entry(bridge, mac, 0)
        if found is None and bridge.vlan_filtering and bridge.default_pvid:
            found = self._fdb_entry(bridge, mac, bridge.default_pvid)
        return found

    def _fdb_entry(self, bridge: Link, mac: str,
                   vlan: int) -> FdbEntry | None:
        return self.ask(
            bridge.name, 'looking up %s in its FDB' % mac,
            rtnetlink.GET_NEIGHBOUR, fdb.question(bridge.index, mac, vlan),
            rtnetlink.NEW_NEIGHBOUR, FdbEntry.from_message,
            tolerated=errno.ENOENT)

    def fixed_macs(self) -> set[tuple[int, str]]:
        """Return all fixed entries of all bridges: index of the port, MAC."""
        return {(index, mac) for index, mac, _ in self.fixed_entries()}

    def fixed_entries(self) -> set[tuple[int, str, int]]:
        """Return the same, each with its VLAN, 0: for frames without one."""
        entries = self.list(
            'the host', 'listing its forwarding entries',
            rtnetlink.GET_NEIGHBOUR, rtnetlink.neighbour(0),
            lambda body: (FdbEntry.from_message(body), fdb.mac_of(body),
                          fdb.vlan_of(body)))
        return {(entry.port_index, mac, vlan) for entry, mac, vlan in entries
                if entry.fixed}

    def vlans_of_ports(self) -> dict[int, set[int]]:
        """Return the VLANs of all ports of all bridges, by their index.

        For those who look at a whole host, on which a bridge filters VLANs.
        """
        found: dict[int, set[int]] = {}
        for index, vlans in self.list(
                'the host', 'listing the VLANs of ports', rtnetlink.GET_VLAN,
                rtnetlink.vlans(0), fdb.vlans_of_port):
            found.setdefault(index, set()).update(vlans)
        return found

    def fix_fdb_entry(self, link: Link, mac: str) -> None:
        """Have the bridge send frames for a MAC to this port, for good.

        In each VLAN that the port has now. Whatever entry there was for the
        MAC is this one now. It is gone when the port leaves the bridge.
        """
        self.set(
            link.name, 'setting %s in the FDB of its bridge' % mac,
            rtnetlink.NEW_NEIGHBOUR, fdb.fixed(link.index, mac),
            rtnetlink.CREATE | rtnetlink.REPLACE)

    def remove_fdb_entry(self, link: Link, mac: str) -> None:
        """Have a MAC no more on this port; it was not is success.

        In none of the VLANs that the port has.
        """
        self.set(
            link.name, 'removing %s from the FDB of its bridge' % mac,
            rtnetlink.DELETE_NEIGHBOUR, fdb.any_kind(link.index, mac),
            tolerated=errno.ENOENT)

    def set_backup_port(self, link: Link, other: Link | None) -> None:
        """Have another port of the bridge get a port's frames in its place.

        Only while it has no carrier: for a TAP, while nobody holds it.

        :param other: None: none
        """
        self._set(link.index, link.name, 'setting its backup port', [
            link_data.backup_port(other.index if other else 0)])

    def forget_learned(self, link: Link) -> None:
        """Have no MAC on this port any more that the bridge had learned."""
        self._set(link.index, link.name, 'flushing what was learned there',
                  [link_data.forget_learned()])

    def addresses(self, link: Link) -> list[str]:
        """Return the IP addresses of a link, each with its prefix length."""
        return list(map(str, self._addresses(link)))

    def global_addresses(self, link: Link) -> list[str]:
        """Return those that are good for more than the link itself."""
        return [str(address) for address in self._addresses(link)
                if address.scope < SCOPE_LINK]

    def _addresses(self, link: Link) -> list[Address]:
        found = self.list(
            link.name, 'listing its addresses', rtnetlink.GET_ADDRESS,
            rtnetlink.address(link.index, socket.AF_UNSPEC, 0),
            Address.from_message, tolerated=errno.ENODEV)
        # Before Linux 4.20 they are those of all links.
        return [address for address in found
                if address.is_ip and address.link_index == link.index
                and address.scope <= SCOPE_HOST]


def is_named(index: int, name: str) -> bool:
    """Return whether the link with this index has, by now, this name.

    An ioctl: much cheaper than to have all of the link described.
    """
    try:
        return socket.if_nametoindex(name) == index
    except OSError:
        return False
