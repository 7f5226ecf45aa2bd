# SPDX-License-Identifier: Apache-2.0

"""The commands of "Troubleshooting" can be typed as they are."""

import dataclasses
import json
import os
import re
import shutil
import subprocess

from tests import base
from tests import documents
from tests import hosts
from tests.integration import test_daemon
from vif_plug_tapmac.kernel.agent_connections import is_possible
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted import security_groups

#: What the commands need that is not here: a libvirt, Nova's user, a cloud,
#: which tests/cloud has.
_NOT_RUN = ('virsh', 'sudo -u nova', 'openstack server')
#: An audit says by its exit status how bad it is.
_WARNINGS, _ERRORS = 10, 20


#: As in the names that the agent has written down.
_GROUP, *_RULES = ('%s-4a1b-4c2d-8e3f-5a6b7c8d9e0f' % each for each in (
    '3f1c7a52', '5b7d1e01', '5b7d1e02', '5b7d1e03'))
_NAMES = '/run/tapmac-agent/names.json'


def _is_screen(block):
    """Return whether a block has a command, and what that prints."""
    return block.text.startswith('$ ')


class TroubleshootingTest(base.FunctionalTestCase):

    def run_block(self, block):
        return subprocess.run(
            ['sh', '-eu', '-c', block.text], text=True, capture_output=True,
            env=dict(os.environ, PYTHONWARNINGS='ignore', PATH='%s:%s' % (
                test_daemon.BIN, os.environ['PATH'])))

    def test_commands(self):
        for program in 'ip', 'bridge':
            if not shutil.which(program):
                self.cannot_run('needs iproute2: run tools/peers.sh')
        self.plug()
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            for block in documents.blocks(documents.TROUBLESHOOTING):
                if any(word in block.text for word in _NOT_RUN) or (
                        _is_screen(block)):
                    continue
                done = self.run_block(block)
                self.assertIn(done.returncode, (
                    0, _WARNINGS, _ERRORS) if 'audit' in block.text else (0,),
                    block.text + done.stderr)
                self.assertNotEqual('', done.stdout, block.text)

    def feed(self):
        """Do what an agent does for the port that the page is about."""
        its = (security_groups.Rule('6 22-22', 'ingress', 4, 6, 22, 22),
               security_groups.Rule('any', 'egress', 4),
               security_groups.Rule('any', 'egress', 6))
        privileged.apply_filter(security_groups.Change(
            ports=(security_groups.Port(
                base.VIF_ID, base.TAP, base.GUEST_MAC,
                ((base.GUEST_MAC, '192.0.2.10/32'),), (_GROUP,),
                stateful=False),),
            groups=(security_groups.Group(_GROUP, False, its),),
            is_all=True).as_fields())
        os.mkdir(os.path.dirname(_NAMES))
        with open(_NAMES, 'w') as file:
            json.dump({'groups': {_GROUP: {'name': 'web', 'rules': [
                [id_, each.direction, each.family, each.id]
                for id_, each in zip(_RULES, its)]}}}, file)

    @base.needs_locked_ports
    def test_screens_of_ports_with_groups(self):
        self.only_in_full()
        screens = [block for block in documents.blocks(
            documents.TROUBLESHOOTING) if _is_screen(block)]
        self.assertEqual(9, len(screens))
        self.configure(firewall='agent')
        self.plug()
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            hosts.mount('tmpfs', '/run', 'tmpfs')
            for number, block in enumerate(screens):
                if number == 1:
                    self.feed()
                command, shown = re.fullmatch(
                    r'\$ ((?:.*\\\n)*.*\n)((?:.|\n)*)', block.text).groups()
                done = self.run_block(dataclasses.replace(
                    block, text=command))
                self.assertIn(done.returncode, (0, _WARNINGS, _ERRORS),
                              done.stderr)
                if '--connections' in command and is_possible():
                    shown = 'none\n'
                self.assertEqual(shown, done.stdout, command)
