# SPDX-License-Identifier: Apache-2.0

"""One contestant, in a process of its own.

Started by :mod:`benchmarks.contestants` with the Python of an environment that
has the contestant's libraries, in network and mount namespaces of its own. It
answers each line of JSON by one. So nothing is imported from elsewhere in this
directory.

A request has ``work`` (plug, replug, unplug), ``first`` and ``count``, the
numbers of the ports, and ``threads``; the answer has ``each``, the seconds of
each, ``total``, those of all, and ``processor``, what the thread that did each
took of the processor. The bridge is br100, as tapmac makes one, but for
multicast snooping if that is asked for.
"""

import concurrent.futures
import contextlib
import ctypes
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import typing

BRIDGE = 'br100'
MTU = 1500


class Port(typing.NamedTuple):
    """The same port for all contestants."""
    number: int

    @property
    def vif_id(self) -> str:
        return '%08x-0000-4000-8000-000000000000' % self.number

    @property
    def name(self) -> str:
        return 'tap%08x' % self.number

    @property
    def mac(self) -> str:
        """The guest's."""
        return 'fa:16:3e:%02x:%02x:%02x' % (
            self.number >> 16 & 255, self.number >> 8 & 255,
            self.number & 255)

    @property
    def tap_mac(self) -> str:
        return 'fe' + self.mac[2:]


class Contestant:
    """Does each work for one port. Started in its namespaces.

    :cvar sections: of the configuration: its privsep contexts
    :cvar works: what it can do
    :cvar anti_spoofing: as tapmac is configured: the others have no such thing
    """
    anti_spoofing = 'none'
    sections: tuple[str, ...] = ()
    works: tuple[str, ...] = ('plug', 'replug', 'unplug')

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        if self.sections:
            self._configure()

    def _configure(self) -> None:
        """Do what nova-compute does before it plugs."""
        from oslo_config import cfg
        from oslo_log import log as logging
        directory = tempfile.mkdtemp(prefix='tapmac-benchmark-')
        conf = pathlib.Path(directory, 'nova.conf')
        helper = pathlib.Path(sys.prefix, 'bin/privsep-helper')
        conf.write_text(
            '[DEFAULT]\nlog_file = %s/log\n[oslo_concurrency]\n'
            'lock_path = %s\n[os_vif_tapmac]\nudev_timeout = 0\n'
            'anti_spoofing = %s\n'
            % (directory, directory, self.anti_spoofing) + ''.join(
                '[%s]\nhelper_command = %s --config-file %s\n'
                % (section, helper, conf) for section in self.sections))
        self._conf = conf
        logging.register_options(cfg.CONF)
        cfg.CONF([], project='nova', default_config_files=[str(conf)])
        logging.setup(cfg.CONF, 'nova')

    def plug(self, port: Port) -> None:
        raise NotImplementedError

    def replug(self, port: Port) -> None:
        self.plug(port)

    def unplug(self, port: Port) -> None:
        raise NotImplementedError

    def run(self, request: dict[str, typing.Any]) -> dict[str, typing.Any]:
        """Do the work of a request and return how long it took."""
        work = getattr(self, request['work'], None)
        if work is None:  # Not for ports one by one.
            return typing.cast('dict[str, typing.Any]', getattr(
                self, 'all_' + request['work'])(request['count']))
        ports = map(Port, range(request['first'],
                                request['first'] + request['count']))
        timed = functools.partial(_timed, work)
        start = time.perf_counter()
        if request['threads'] == 1:
            seen = list(map(timed, ports))
        else:
            with concurrent.futures.ThreadPoolExecutor(
                    request['threads']) as pool:
                seen = list(pool.map(timed, ports))
        return {'each': [seconds for seconds, _ in seen],
                'processor': [spent for _, spent in seen],
                'total': time.perf_counter() - start}

    def pair(self, port: Port) -> None:
        self.plug(port)
        self.unplug(port)

    def all_daemon(self, count: int) -> dict[str, int]:
        """Return what the privsep daemon has by now."""
        daemon, = _daemons()
        status = pathlib.Path('/proc/%d/status' % daemon).read_text()
        seen = dict(line.split(':', 1) for line in status.splitlines())
        return {'kib': int(seen['VmRSS'].split()[0]),
                'threads': int(seen['Threads']),
                'descriptors': len(os.listdir('/proc/%d/fd' % daemon))}


def _daemons() -> typing.Iterator[int]:
    """Yield the pids of the daemons in our network namespace."""
    namespace = os.stat('/proc/self/ns/net')
    for pid in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):  # It has ended.
            directory = pathlib.Path('/proc', pid)
            if (os.path.samestat(namespace, (directory / 'ns/net').stat())
                    and b'privsep-helper' in (directory / 'cmdline'
                                              ).read_bytes()):
                yield int(pid)


def _timed(work: typing.Callable[[Port], None],
           port: Port) -> tuple[float, float]:
    """Return how long it took, and how much of the processor this thread."""
    start, spent = time.perf_counter(), time.thread_time()
    work(port)
    return time.perf_counter() - start, time.thread_time() - spent


def _bridge_vif(port: Port, plugin: str) -> typing.Any:
    from os_vif.objects import network
    from os_vif.objects import vif
    return vif.VIFBridge(
        id=port.vif_id, plugin=plugin, vif_name=port.name, address=port.mac,
        bridge_name=BRIDGE, has_traffic_filtering=True,
        network=network.Network(
            id='5d6a7b8c-0000-4000-8000-000000000000', mtu=MTU,
            should_provide_bridge=True, bridge_interface=''))


def _instance() -> typing.Any:
    from os_vif.objects import instance_info
    return instance_info.InstanceInfo(
        uuid='d1b6c1b2-0000-4000-8000-000000000000', name='demo')


class Limit(Contestant):
    """The same system calls from C: see limit.c."""

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        self._program = arguments[0]

    def run(self, request: dict[str, typing.Any]) -> dict[str, typing.Any]:
        done = subprocess.run(
            [self._program, request['work'], BRIDGE, str(request['first']),
             str(request['count']), str(request['threads'])],
            check=True, stdout=subprocess.PIPE, text=True)
        *each, total = [int(line) / 1e9 for line in done.stdout.split()]
        return {'each': each, 'total': total}


class InProcess(Contestant):
    """tapmac without os-vif and without privsep: the doors, called as root."""
    sections = ('vif_plug_tapmac_privileged',)

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        super().__init__(arguments)
        from oslo_config import cfg
        from vif_plug_tapmac import opts
        from vif_plug_tapmac import privileged
        from vif_plug_tapmac import privsep
        from vif_plug_tapmac.wanted import from_config
        privsep.vif_plug.set_client_mode(False)
        self._doors = privileged
        self._fields = dict(
            from_config.port_fields(opts.group(cfg.CONF)), bridge=BRIDGE,
            mtu=MTU, create_tap=True, uplink=None, addresses=None)

    def _identity(self, port: Port) -> dict[str, str]:
        return {'vif_id': port.vif_id, 'name': port.name}

    def plug(self, port: Port) -> None:
        self._doors.ensure_port(dict(
            self._fields, **self._identity(port), guest_mac=port.mac))

    def unplug(self, port: Port) -> None:
        self._doors.remove_port(self._identity(port))

    def all_purge(self, count: int) -> dict[str, typing.Any]:
        """Remove ports from 1 on at once, as "tapmac purge" does."""
        ports = [self._identity(Port(number + 1)) for number in range(count)]
        start = time.perf_counter()
        removed = self._doors.remove_ports(ports, False)
        total = time.perf_counter() - start
        assert len(removed) == count, removed
        return {'total': total}

    def all_audit(self, count: int) -> dict[str, typing.Any]:
        """Run "tapmac audit", from start to end."""
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, '-c', 'import sys; from vif_plug_tapmac.cli '
             'import main; sys.exit(main.main())', '--config-file',
             str(self._conf), 'audit'],
            stdout=subprocess.PIPE, text=True)
        return {'total': time.perf_counter() - start,
                'status': done.returncode, 'lines': done.stdout.count('\n')}


class Guarded(InProcess):
    """The same, with each guest kept to its MAC; no other does that."""
    anti_spoofing = 'mac'


class Kept(Guarded):
    """The same, with each guest kept to its addresses as well."""
    anti_spoofing = 'full'

    def plug(self, port: Port) -> None:
        self._doors.ensure_port(dict(
            self._fields, **self._identity(port), guest_mac=port.mac,
            addresses=('10.%d.%d.%d' % (port.number >> 16 & 255,
                                        port.number >> 8 & 255,
                                        port.number & 255),)))


class Privsep(Contestant):
    """tapmac as nova-compute calls it, with its real daemon."""
    sections = ('vif_plug_tapmac_privileged',)
    plugin = 'tapmac'

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        super().__init__(arguments)
        import os_vif
        os_vif.initialize()
        self._os_vif = os_vif
        self._instance = _instance()

    def plug(self, port: Port) -> None:
        self._os_vif.plug(_bridge_vif(port, self.plugin), self._instance)

    def unplug(self, port: Port) -> None:
        self._os_vif.unplug(_bridge_vif(port, self.plugin), self._instance)


class Situated(Privsep):
    """tapmac by os-vif, in one process, on a host with much of something.

    What there is much of is a request of its own, before all others.
    """
    anti_spoofing = 'mac'

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        super().__init__(arguments)
        from oslo_config import cfg
        from vif_plug_tapmac import privsep
        privsep.vif_plug.set_client_mode(False)
        self._conf_of_all = cfg.CONF
        self._on_new_bridges = False

    def _set(self, option: str, value: typing.Any) -> None:
        self._conf_of_all.set_override(option, value, group='os_vif_tapmac')

    def plug(self, port: Port) -> None:
        vif = _bridge_vif(port, self.plugin)
        if self._on_new_bridges:
            vif.bridge_name = 'br%08x' % port.number
        self._os_vif.plug(vif, self._instance)

    def all_uplinks(self, count: int) -> dict[str, typing.Any]:
        self._set('bridge_uplinks', {'b%d' % number: 'e%d' % number
                                     for number in range(count)})
        return {}

    def all_rules(self, count: int) -> dict[str, typing.Any]:
        from tests import hosts
        self._set('host_shield', True)
        hosts.add_rules('others', count)
        return {}

    def all_chains(self, count: int) -> dict[str, typing.Any]:
        """Where the firewall of the host stands between guests."""
        from tests import hosts
        self._on_new_bridges = True
        with contextlib.suppress(OSError):  # br_netfilter is not loaded.
            pathlib.Path('/proc/sys/net/bridge/bridge-nf-call-iptables'
                         ).write_text('1')
        hosts.add_chains('others', count)
        return {}

    def all_links(self, count: int) -> dict[str, typing.Any]:
        commands = ''.join('link add l%d type ifb\n' % number
                           for number in range(count))
        subprocess.run(['ip', '-batch', '-'], input=commands, text=True,
                       check=True)
        return {}

    def all_users(self, count: int) -> dict[str, typing.Any]:
        """Have each look-up of a user take so many milliseconds."""
        import pwd
        look_up = pwd.getpwnam

        def slowly(name: str) -> typing.Any:
            time.sleep(count / 1000)
            return look_up(name)
        pwd.getpwnam = slowly
        return {}


class LinuxBridge(Privsep):
    """os-vif 4.3.1's own plugin: it looks for the bridge, and no more."""
    sections = ('vif_plug_linux_bridge_privileged',)
    plugin = 'linux_bridge'


class CreateTap(Contestant):
    """What os-vif 5.3 does for Open vSwitch, and a port of a bridge."""
    sections = ('vif_plug_ovs_privileged',)

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        super().__init__(arguments)
        from vif_plug_ovs import linux_net
        self._linux_net = linux_net

    def plug(self, port: Port) -> None:
        self._linux_net.create_tap(port.name, MTU, port.tap_mac)
        self._linux_net.add_bridge_port(BRIDGE, port.name)

    def unplug(self, port: Port) -> None:
        self._linux_net.delete_net_dev(port.name)


class Nova(Contestant):
    """Nova 34's plug_tap; it has nothing that attaches, so os-vif does."""
    sections = ('nova_sys_admin', 'vif_plug_ovs_privileged')

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        import nova.conf
        import nova.privsep.linux_net
        super().__init__(arguments)
        from nova.network import model
        from nova import objects
        from nova.virt.libvirt import vif
        from vif_plug_ovs import linux_net
        objects.register_all()
        nova.conf.CONF.set_override('virt_type', 'kvm', 'libvirt')
        self._model = model
        self._driver = vif.LibvirtGenericVIFDriver()
        self._linux_net = linux_net
        self._instance = objects.Instance(
            uuid='d1b6c1b2-0000-4000-8000-000000000000',
            flavor=objects.Flavor(vcpus=1, extra_specs={}), image_ref='',
            system_metadata={})

    def _vif(self, port: Port) -> typing.Any:
        return self._model.VIF(
            id=port.vif_id, address=port.mac, devname=port.name,
            type=self._model.VIF_TYPE_TAP,
            details={self._model.VIF_DETAILS_TAP_MAC_ADDRESS: port.tap_mac},
            network=self._model.Network(
                id='5d6a7b8c-0000-4000-8000-000000000000', mtu=MTU))

    def plug(self, port: Port) -> None:
        self._driver.plug_tap(self._instance, self._vif(port))
        self._linux_net.add_bridge_port(BRIDGE, port.name)

    def unplug(self, port: Port) -> None:
        self._driver.unplug_tap(self._instance, self._vif(port))


class Ip(Contestant):
    """What an operator types, one process for each line."""

    def plug(self, port: Port) -> None:
        _ip('tuntap', 'add', port.name, 'mode', 'tap', 'user', '0')
        self.replug(port)

    def replug(self, port: Port) -> None:
        _ip('link', 'set', port.name, 'address', port.tap_mac, 'mtu',
            str(MTU), 'master', BRIDGE, 'alias', port.vif_id)
        _ip('link', 'set', port.name, 'addrgenmode', 'none')
        _ip('link', 'set', port.name, 'up')

    def unplug(self, port: Port) -> None:
        _ip('link', 'delete', port.name)


def _ip(*words: str) -> None:
    subprocess.run(['ip', *words], check=True)


class Cni(Contestant):
    """CNI's plugin "bridge", which makes a veth instead of a TAP.

    It refuses to add what is there.
    """
    works = ('plug', 'unplug')

    def __init__(self, arguments: typing.Sequence[str]) -> None:
        self._program = arguments[1]
        # A namespace belongs to a thread, and stays while it is open.
        opened: list[int] = []
        thread = threading.Thread(target=lambda: (
            ctypes.CDLL(None).unshare(_CLONE_NEWNET),
            opened.append(os.open('/proc/thread-self/ns/net', os.O_RDONLY))))
        thread.start()
        thread.join()
        self._pod = '/proc/%d/fd/%d' % (os.getpid(), *opened)

    def _call(self, command: str, port: Port) -> None:
        subprocess.run(
            [self._program], check=True, text=True, stdout=subprocess.DEVNULL,
            input=json.dumps({'cniVersion': '0.4.0', 'name': 'guests',
                              'type': 'bridge', 'bridge': BRIDGE, 'mtu': MTU,
                              'ipam': {}}),
            env={'CNI_COMMAND': command, 'CNI_CONTAINERID': port.name,
                 'CNI_NETNS': self._pod, 'CNI_IFNAME': port.name,
                 'CNI_PATH': os.path.dirname(self._program)})

    def plug(self, port: Port) -> None:
        self._call('ADD', port)

    def unplug(self, port: Port) -> None:
        self._call('DEL', port)


CONTESTANTS: dict[str, type[Contestant]] = {
    'limit': Limit, 'in process': InProcess, 'guarded': Guarded,
    'kept': Kept, 'privsep': Privsep, 'situated': Situated, 'Nova 34': Nova,
    'linux_bridge 4.3.1': LinuxBridge, 'os-vif 5.3': CreateTap, 'ip': Ip,
    'CNI': Cni}
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
_CLONE_NEWNET = 0x40000000


def _make_bridge(snooping: str) -> None:
    _ip('link', 'add', BRIDGE, 'address', '02:00:00:00:00:01', 'type',
        'bridge', 'stp_state', '0', 'forward_delay', '0', 'mcast_snooping',
        snooping)
    for family, sysctl, value in (('ipv6', 'disable_ipv6', '1'),
                                  ('ipv4', 'arp_ignore', '1'),
                                  ('ipv4', 'arp_announce', '2')):
        pathlib.Path('/proc/sys/net', family, 'conf', BRIDGE,
                     sysctl).write_text(value)
    _ip('link', 'set', BRIDGE, 'mtu', str(MTU - 1))
    # tapmac would not let its own snoop.
    _ip('link', 'set', BRIDGE, 'mtu', str(MTU), 'up', *(
        () if snooping == '1'
        else ('group', '29794', 'alias', 'tapmac:bridge:1')))


def main() -> None:
    """Be the contestant named first, until there are no more requests.

    The second argument is whether its bridge snoops on multicast, 0 or 1; the
    others are programs: limit, and what the contestant needs.
    """
    name, snooping, *arguments = sys.argv[1:]
    # Answers alone go where they are read; a library may print.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    subprocess.run(['mount', '-t', 'sysfs', 'sysfs', '/sys'], check=True)
    _ip('link', 'set', 'lo', 'up')
    _make_bridge(snooping)
    contestant = CONTESTANTS[name](arguments)
    filler = Limit(arguments)
    for line in itertools.chain(['{}'], sys.stdin):
        request = json.loads(line)
        if not request:
            answer: dict[str, typing.Any] = {'works': contestant.works}
        elif request['work'] == 'fill':
            answer = filler.run(request)
        else:
            answer = contestant.run(request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main()
