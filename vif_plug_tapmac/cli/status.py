# SPDX-License-Identifier: Apache-2.0

"""The command ``tapmac-status upgrade check``.

Run it as nova-compute's user on each compute host, before nova-compute is
started with a new release; and with ``--agent`` as that of tapmac-agent.
"""

import contextlib
import importlib.metadata
import os
import re
import sys
import typing

from oslo_config import cfg
from oslo_log import log
from oslo_upgradecheck import upgradecheck

from vif_plug_tapmac.cli import bound_ports
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import daemon
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import host_checks
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac import opts
from vif_plug_tapmac import startup
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names


#: What each is called, and what does it.
_Checks = tuple[
    tuple[str, typing.Callable[..., upgradecheck.Result]], ...]
#: Of which tapmac-agent is one.
_LEAST_NEUTRON = (28,)
#: Has it checked for tapmac-agent.
_AGENT = '--agent'


class Checks(upgradecheck.UpgradeCommands):
    """What must be so for nova-compute to plug anything here."""

    def _check_plugin(self) -> upgradecheck.Result:
        """os-vif takes one of the plugins of a name, nobody knows which."""
        found = [entry_point.value for entry_point in
                 importlib.metadata.entry_points(group='os_vif')
                 if entry_point.name == 'tapmac']
        return _result(
            found == ['vif_plug_tapmac.plugin:TapMacPlugin'],
            'os-vif finds these plugins of the name tapmac: %s. Install '
            'vif-plug-tapmac once, and nothing else that offers this name.'
            % (', '.join(found) or 'none'))

    def _check_configuration(self) -> upgradecheck.Result:
        try:
            from_config.port_fields(cfg.CONF[opts.GROUP])
            from_config.limits(cfg.CONF[opts.GROUP])
        except (exception.InvalidConfig, cfg.ConfigFileValueError) as error:
            return _result(False, str(error))
        return _result(True)

    def _check_port_options(self) -> upgradecheck.Result:
        """A plug fails where the kernel lacks one, after this check."""
        try:
            return _warning(' '.join(opts.port_options_too_new(
                cfg.CONF[opts.GROUP])))
        except cfg.ConfigFileValueError:  # As above.
            return _result(True)

    def _check_kernel(self) -> upgradecheck.Result:
        """Each is tried: a release says little of what it was built with."""
        config = cfg.CONF[opts.GROUP]
        try:
            needed = (
                ('lock', config.anti_spoofing != 'none' and 'anti_spoofing = '
                 '%s needs locked ports of bridges' % config.anti_spoofing),
                ('shield', config.host_shield and 'host_shield needs '
                 'nf_tables for bridges, IP and ARP'),
                ('addresses', config.anti_spoofing == 'full'
                 and 'anti_spoofing = full needs nf_tables for bridges'),
                ('addresses', config.firewall == 'agent'
                 and 'firewall = agent needs nf_tables for bridges'),
                ('connections', config.firewall == 'agent'
                 and 'stateful security groups need conntrack for bridges, '
                 'without which tapmac-agent starts with conntrack = '
                 'stateless_only alone'),
                ('vlan', any(map(names.parse_vlan_device,
                                 config.bridge_uplinks.values()))
                 and 'bridge_uplinks has VLANs, which need 802.1Q'))
        except cfg.ConfigFileValueError:  # As above.
            return _result(True)
        missing = ['%s (%s)' % (words, why)
                   for what, words in needed if words
                   for why in [startup.cannot(what)] if why]
        return _warning('This kernel, %s, lacks something: %s. See "Kernels" '
                        'in "Deploying with Nova".'
                        % (os.uname().release, '; '.join(missing))
                        if missing else '')

    def _check_arriving(self) -> upgradecheck.Result:
        """A live migration costs neighbours nothing, or something."""
        try:
            fault = startup.arriving_fault(cfg.CONF[opts.GROUP])
        except cfg.ConfigFileValueError:  # As above.
            return _result(True)
        return _warning('Arriving guests are locked: %s' % fault
                        if fault else '')

    def _check_routes(self) -> upgradecheck.Result:
        """Nova names other plugins, and each only in some releases."""
        nova = _nova_release()
        if nova is None:
            return _result(True)
        config = cfg.CONF[opts.GROUP]
        if not config.claim_plugins:
            return _warning(
                'claim_plugins is empty, and Nova names tapmac for no port: '
                'it will not be called. Set it to ovs or linux_bridge '
                '("Deploying with Nova" in the documentation).')
        for name, releases, known in (('ovs', '33 and newer', nova >= 33),
                                      ('linux_bridge', '33 and older',
                                       nova <= 33)):
            if name in config.claim_plugins and not known:
                return _warning(
                    'claim_plugins has %s, and this is Nova %d: only Nova %s '
                    'gives tapmac a port by that name.' % (
                        name, nova, releases))
        try:
            if config.nova_managed_tap:
                from vif_plug_tapmac import nova_driver
                nova_driver.require_nova(config)
        except exception.InvalidConfig as error:
            return _result(False, str(error))
        return _result(True)

    def _check_versions(self) -> upgradecheck.Result:
        """What was never tested may work, and may not."""
        odd = [
            '%s %s (tested: %s)' % (name, '.'.join(map(str, version)), tested)
            for name, version, least, most, tested in (
                ('Nova', _version('nova'), (31,), (34,), '31 to 34'),
                ('os-vif', _version('os-vif'), (3, 1), (5, 3), '3.1 to 5.3'),
                ('libvirt', _libvirt_version(), (9,), (11,),
                 '9; 10 and 11 were read'))
            if version is not None
            and (version < least or version[:len(most)] > most)]
        nova, os_vif = _version('nova'), _version('os-vif')
        if nova and os_vif and (nova[0] >= 34) > (os_vif[0] >= 5):
            odd.append('Nova %d with os-vif %d (it needs 5)'
                       % (nova[0], os_vif[0]))
        return _warning('These are not known to work with tapmac: %s. The '
                        'table of "Deploying with Nova" has those that are.'
                        % ', '.join(odd) if odd else '')

    def _check_old_options(self) -> upgradecheck.Result:
        return _warning(' '.join(
            '%s = %s is ignored: %s.' % each for each in linux_bridge.ignored(
                cfg.CONF[opts.GROUP], cfg.CONF)))

    def _check_helper(self) -> upgradecheck.Result:
        """The daemon is started in earnest: nothing less is certain."""
        failure = daemon.failure('vif_plug')
        return _result(
            failure is None,
            'The privileged daemon can not be started by this user: %s. See '
            '"Root for one context" in "Deploying with Nova" for '
            'helper_command of [vif_plug_tapmac_privileged]. Run this check '
            'as the user of nova-compute.' % failure)

    def _check_bindings(self) -> upgradecheck.Result:
        """Neutron is not asked where nova.conf does not say which."""
        try:
            return bindings_result(bound_ports.read(cfg.CONF) or [],
                                   _nova_release())
        except bound_ports.Unknown as error:
            return _warning('Neutron does not say how it has the ports of '
                            'this host bound: %s.' % error)

    def _check_udev(self) -> upgradecheck.Result:
        return _warning(_words(host_checks.hidden_udev(cfg.CONF[opts.GROUP])))

    def _check_managers(self) -> upgradecheck.Result:
        """What takes guests off their bridges later, and all at once."""
        config = cfg.CONF[opts.GROUP]
        try:
            return _warning(_words(audit.audit_managers(
                inventory.read(config), config)))
        except cfg.ConfigFileValueError:  # As above.
            return _result(True)

    def _check_rivals(self) -> upgradecheck.Result:
        return _warning(_words(
            finding for finding in host_checks.rivals(cfg.CONF[opts.GROUP])
            if finding.device != 'tapmac'))  # As above.

    def _check_tun_device(self) -> upgradecheck.Result:
        return _result(os.path.exists(tun.TUN_DEVICE), tun.TUN_MISSING)

    _upgrade_checks: _Checks = (
        ('os-vif plugin', _check_plugin),
        ('Other os-vif plugins', _check_rivals),
        ('Versions', _check_versions),
        ('[%s]' % opts.GROUP, _check_configuration),
        ('Port options', _check_port_options),
        ('Kernel', _check_kernel),
        ('Arriving guests', _check_arriving),
        ('[%s]' % linux_bridge.GROUP, _check_old_options),
        ('Routes from Nova', _check_routes),
        ('Privileged daemon', _check_helper),
        ('Bindings of ports', _check_bindings),
        ('udev', _check_udev),
        ('Network managers', _check_managers),
        ('TUN device', _check_tun_device))


class AgentChecks(Checks):
    """What must be so for tapmac-agent to keep guests to their groups."""

    def _check_firewall(self) -> upgradecheck.Result:
        try:
            firewall = cfg.CONF[opts.GROUP].firewall
            from_config.groups(cfg.CONF[opts.GROUP])
        except (exception.InvalidConfig, cfg.ConfigFileValueError) as error:
            return _result(False, str(error))
        return _result(
            firewall == 'agent',
            'firewall is %s: tapmac-agent does not start. Have firewall = '
            'agent, as in nova.conf.' % firewall)

    def _check_neutron(self) -> upgradecheck.Result:
        found = _version('neutron')
        return _result(
            found is not None and found >= _LEAST_NEUTRON,
            'tapmac-agent needs Neutron %s or newer, and this Python has %s. '
            'Install vif-plug-tapmac[agent] for the Python of Neutron\'s '
            'agents.' % ('.'.join(map(str, _LEAST_NEUTRON)),
                         'none' if found is None
                         else '.'.join(map(str, found))))

    def _check_agents_helper(self) -> upgradecheck.Result:
        failure = daemon.failure('filter')
        return _result(
            failure is None,
            'The privileged daemon can not be started by this user: %s. See '
            '"Root for its daemon" in "Security groups with tapmac-agent" for '
            'helper_command of [tapmac_agent_privileged], and what sudo is to '
            'allow. Run this check as the user of tapmac-agent.' % failure)

    _upgrade_checks: _Checks = (
        ('[%s]' % opts.GROUP, _check_firewall),
        ('Neutron', _check_neutron),
        ('Kernel', Checks._check_kernel),
        ('Privileged daemon', _check_agents_helper))


def _result(good: bool, details: str | None = None) -> upgradecheck.Result:
    if good:
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)
    return upgradecheck.Result(upgradecheck.Code.FAILURE, details)


def bindings_result(
        seen: typing.Iterable[tuple[typing.Any, str | None]],
        nova: int | None) -> upgradecheck.Result:
    """Return what there is to say of bindings.

    :param seen: see :func:`bound_ports.read`
    :param nova: the major version of Nova here
    """
    refused = [port.id for port, _ in seen
               if port.binding_vif_type == 'bridge']
    if refused and nova is not None and nova >= 34:
        return _result(
            False, 'nova-compute of Nova %d does not start with a server '
            'whose port is bound as bridge, as these: %s. Have Nova 33 here, '
            'and the ports bound anew with "tapmac-migrate rebind", before.'
            % (nova, ', '.join(refused)))
    return _warning(' '.join('Port %s: %s.' % (port.id, why)
                             for port, why in seen if why))


def _warning(details: str) -> upgradecheck.Result:
    """Return a warning, or success if there is nothing to say."""
    if not details:
        return _result(True)
    return upgradecheck.Result(upgradecheck.Code.WARNING, details)


def _words(findings: typing.Iterable[Finding]) -> str:
    return ' '.join('%s: %s: %s. Remedy: %s.' % (
        finding.code, finding.device, finding.evidence, finding.remedy)
        for finding in findings)


def _nova_release() -> int | None:
    """Return the major version of the Nova installed here, None: none."""
    found = _version('nova')
    return None if found is None else found[0]


def _version(distribution: str) -> tuple[int, ...] | None:
    """Return the release of a package installed here, None: not installed."""
    try:
        found = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    release = re.match(r'\d+(\.\d+)*', found)
    return tuple(map(int, release[0].split('.'))) if release else None


def _libvirt_version() -> tuple[int, ...] | None:
    try:
        return domains.version()
    except domains.Unknown as error:
        if _nova_release() is not None:  # Else there is none to be asked.
            sys.stderr.write('libvirt does not answer, so its version is not '
                             'known: %s\n' % error)
        return None


def main() -> int:
    """Check this host against its configuration; return the exit status.

    0 if all is well, 1 if something deserves a look, 2 if something must be
    mended first, 255 for an error.
    """
    is_agents = _AGENT in sys.argv[1:]
    service = (configuration.TAPMAC_AGENT if is_agents
               else configuration.NOVA_COMPUTE)
    if not is_agents:
        with contextlib.suppress(ImportError):
            # Nova's options of command lines can be registered before parsing
            # only.
            import nova.conf  # noqa: F401
    opts.group(cfg.CONF)
    log.register_options(cfg.CONF)
    cfg.CONF.register_cli_opt(cfg.BoolOpt(
        _AGENT.lstrip('-'), default=False,
        help='check for tapmac-agent, not for nova-compute'))
    directories = [argument
                   for path in configuration.default_directories(service)
                   for argument in ('--config-dir', path)]
    return upgradecheck.main(
        cfg.CONF, project=service.project,
        upgrade_command=AgentChecks() if is_agents else Checks(),
        argv=directories + sys.argv[1:],
        default_config_files=configuration.default_files(service))
