# SPDX-License-Identifier: Apache-2.0

"""os-vif 4.3.1 with its own plugin linux_bridge, in a process of its own.

Run by the Python of an os-vif that has this plugin: it plugs what comes in, in
the network namespace that comes with it, and says what became of it. All of it
is os-vif's own code, but for iptables-save and iptables-restore: those are
stand-ins, which keep the rules, so that no iptables is needed.
"""

import ctypes
import json
import os
import pathlib
import sys

import os_vif
from os_vif import exception
from os_vif.objects import instance_info
from os_vif.objects import vif as vif_objects
from oslo_config import cfg
from vif_plug_linux_bridge import linux_bridge
from vif_plug_linux_bridge import privsep

_CLONE_NEWNET = 0x40000000
_INSTANCE = instance_info.InstanceInfo(
    uuid='d1b6c1b2-0000-4000-8000-000000000000', name='demo')


def _enter(namespace):
    descriptor = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError('%s: no way in' % namespace)
    os.close(descriptor)


def _install_iptables(directory):
    """Have commands that keep the rules; return the file that has them."""
    rules = directory / 'rules'
    for name, command in (('iptables-save', 'exit 0'),
                          ('iptables-restore', 'exec cat > "%s"' % rules)):
        script = directory / name
        script.write_text('#!/bin/sh\n%s\n' % command)
        script.chmod(0o755)
    os.environ['PATH'] = '%s:%s' % (directory, os.environ['PATH'])
    return rules


def _answer(request, rules):
    _enter(request['namespace'])
    vif = vif_objects.VIFBase.obj_from_primitive(request['vif'])
    # It writes rules only if it has others than it wrote before.
    os_vif.initialize(reset=True)
    rules.unlink(missing_ok=True)
    error = None
    try:
        getattr(os_vif, request['call'])(vif, _INSTANCE)
    except (exception.PlugException, exception.UnplugException) as raised:
        error = [type(raised.kwargs['err']).__name__,
                 str(raised.kwargs['err'])]
    written = rules.read_text() if rules.exists() else ''
    return {'error': error,
            'rules': [line for line in written.splitlines()
                      if vif.bridge_name in line.split()]}


def main():
    """Answer each line of JSON by one; first say which options there are."""
    directory = pathlib.Path(sys.argv[1])
    rules = _install_iptables(directory)
    privsep.vif_plug.set_client_mode(False)
    cfg.CONF([], default_config_files=sys.argv[2:])
    os_vif.initialize()
    cfg.CONF.set_override('lock_path', str(directory), 'oslo_concurrency')
    print(json.dumps([opt.name for opt in
                      linux_bridge.LinuxBridgePlugin.CONFIG_OPTS]),
          flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), rules)), flush=True)


if __name__ == '__main__':
    main()
