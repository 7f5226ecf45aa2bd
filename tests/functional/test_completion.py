# SPDX-License-Identifier: Apache-2.0

"""The tab key, in a real bash that has /etc/bash_completion.d/tapmac."""

import subprocess

from tests import base
from tests.functional import test_operator

_FILE = base.CHECKOUT / 'etc/bash_completion.d/tapmac'
_OTHER_ID = '00000001-0000-4000-8000-000000000000'
#: What bash does for the tab key: the word before it, and the line.
_COMPLETE = '''
source "$1"
set -u
COMP_LINE=$2 COMP_POINT=${#2}
read -r _ _ function _ <<< "$(complete -p tapmac)"
"$function" tapmac
printf '%s\\n' "${COMPREPLY[@]}"
'''


class CompletionTest(test_operator.OperatorTestCase):

    def complete(self, line, *prefix):
        """Return what the tab key offers behind a line."""
        done = subprocess.run(
            [*prefix, 'bash', '--norc', '-c', _COMPLETE, 'bash', str(_FILE),
             line], text=True, capture_output=True)
        self.assertEqual('', done.stderr)
        return sorted(done.stdout.split())

    def test_is_what_the_command_prints(self):
        self.assertEqual(_FILE.read_text(), self.run_tapmac('complete'))

    def test_commands_and_options(self):
        for line, offered in (
                ('tapmac l', ['list']), ('tapmac -v p', ['plug', 'purge']),
                ('tapmac help w', ['watch']), ('tapmac audit ', []),
                ('tapmac --config-file /etc/nova list --b', ['--bridge']),
                ('tapmac list --bridge br100 --format j', ['json']),
                ('tapmac audit -f p', ['prometheus']),
                ('tapmac watch -f ', ['json', 'text']),
                ('tapmac --con', ['--config-file']),
                ('tapmac --config-file /etc/hostn', ['/etc/hostname'])):
            self.assertEqual(offered, self.complete(line), line)

    def test_what_is_on_the_host(self):
        self.plug()
        self.plug(base.numbered_vif(1))
        self.host.add_tap('tapother')
        self.host.add_bridge('br200')
        # What a shell would do with such a name.
        self.host.add_bridge('$(echo>&2)')
        self.host.add_bridge('br*')
        taps = ['tap00000001', base.TAP]
        for line, offered in (
                ('tapmac show ', taps), ('tapmac purge x ', taps),
                ('tapmac show tap0', taps[:1]),
                ('tapmac repair ', ['br100', 'br200', *taps]),
                ('tapmac list --bridge ', ['br100', 'br200']),
                ('tapmac list --bridge br1', ['br100']),
                ('tapmac unplug --vif-id 1', [base.VIF_ID]),
                ('tapmac unplug --vif-id ', [_OTHER_ID, base.VIF_ID]),
                # Of a MAC, bash wants what is behind the last colon.
                ('tapmac mac fa:16:3e:2', ['28:64:c2']),
                ('tapmac plug --bridge br100 --mac f',
                 ['fa:16:3e:00:00:01', base.GUEST_MAC])):
            self.assertEqual(offered, self.complete(line), line)

    def test_words_only(self):
        self.plug()
        done = subprocess.run(
            ['bash', '--norc', '-c', 'source "$1"; COMP_WORDS=(tapmac list '
             '--bridge "") COMP_CWORD=3; _tapmac; echo "${COMPREPLY[*]}"',
             'bash', str(_FILE)], text=True, capture_output=True)
        self.assertEqual(('br100\n', ''), (done.stdout, done.stderr))

    def test_starts_nothing(self):
        """No Python, so that it is quick: bash and what it forks."""
        self.plug()
        self.needs_program('strace')
        done = subprocess.run(
            ['strace', '-f', '-qq', '-e', 'trace=execve',
             'bash', '--norc', '-c',
             'source "$1"; COMP_LINE="tapmac show " COMP_POINT=12; _tapmac; '
             'echo "${COMPREPLY[@]}"', 'bash', str(_FILE)], text=True,
            capture_output=True)
        self.assertEqual(base.TAP, done.stdout.strip())
        self.assertEqual(1, done.stderr.count('execve('), done.stderr)
