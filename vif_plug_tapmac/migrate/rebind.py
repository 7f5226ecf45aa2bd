# SPDX-License-Identifier: Apache-2.0

"""``tapmac-migrate rebind``: the ports of a host are bound anew."""

import argparse
import typing

from cliff import command

from vif_plug_tapmac import exception
from vif_plug_tapmac.migrate import main
from vif_plug_tapmac.migrate import plan
from vif_plug_tapmac.migrate import ports

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.migrate import cloud as clouds
    from vif_plug_tapmac.migrate import rebinding


class Rebind(command.Command):
    """Have the ports of a host bound anew, one by one.

    Those of Linux bridges that tapmac has not bound, those that nobody could
    bind, and those that tapmac would bind otherwise now, as those that were
    bound before the host had tapmac-agent. First a port that is
    of no use else is made on each network, and deleted again: where tapmac
    does not bind that, no port is touched. What stops a port is said, and the
    port is skipped. It can be stopped at any time, and repeated.
    Exit status: 0 if all is as it should be, also in Nova's view; otherwise 1.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be done; nothing is '
                                 'made or changed')
        parser.add_argument('--wait', metavar='SECONDS', type=float,
                            default=300.0,
                            help='how long to wait until tapmac-agent of the '
                                 'host guards them, where there is one. '
                                 'Default: 300')
        parser.add_argument('host', metavar='HOST',
                            help='the host, as Neutron calls it')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        cloud = main.connect(self.app_args)
        host = parsed_args.host
        found = plan.plan(cloud, host, not parsed_args.dry_run)
        if not found:
            self._say('Neutron has no ports on host %s.' % host)
            return 0
        to_do = [job for job in found if job.is_to_do]
        stopped = [job for job in found if job.is_stopped]
        self._say('%s: %d to be bound anew, %d skipped, %d to stay as they '
                  'are.' % (host, len(to_do), len(stopped),
                            len(found) - len(to_do) - len(stopped)))
        for job in stopped:
            self._say('Skipped: %s: %s.' % (
                _of(job.port), '; '.join(job.fate.stops)))
        if parsed_args.dry_run:
            for number, job in enumerate(to_do, 1):
                self._say('%s, would become %s' % (
                    _progress(number, to_do), job.fate.becomes
                    or 'what only Neutron knows: see "plan --try"'))
            return bool(stopped)
        if stopped and not any(job.fate.becomes and job.fate.becomes.is_ours
                               for job in to_do + stopped):
            raise exception.TapMacError(
                'tapmac binds no port on %s, so none was touched.' % host)
        return (self._rebind(cloud, host, to_do, parsed_args.wait)
                or bool(stopped))

    def _rebind(self, cloud: 'clouds.Cloud', host: str,
                to_do: 'list[rebinding.Job]', seconds: float) -> bool:
        """Have these bound anew; return whether something is not right."""
        from vif_plug_tapmac.migrate import rebinding
        failed = False
        for number, job in enumerate(to_do, 1):
            self._say(_progress(number, to_do), end=' -> ')
            try:
                self._say(str(rebinding.rebind(cloud, job) or 'it is gone'))
            except rebinding.MustStop as error:
                self._say('stopped')
                raise exception.TapMacError(
                    '%s: %s. The %d after it were not touched.' % (
                        _of(job.port), error, len(to_do) - number)) from error
            except exception.TapMacError as error:
                self._say('%s.' % error)
                failed = True
        rebinding.wait_for_agent(cloud, host, to_do, seconds, self._say)
        doubts = list(rebinding.doubts(cloud, host, to_do))
        for doubt in doubts:
            self._say('Not right: %s.' % doubt)
        if to_do and not doubts:
            self._say('Neutron has these as they should be, and Nova, too, as '
                      'far as it shows them: it was told to ask Neutron how '
                      'they are bound.')
        return failed or bool(doubts)

    def _say(self, words: str, end: str = '\n') -> None:
        print(words, end=end, file=self.app.stdout, flush=True)


def _progress(number: int, to_do: 'list[rebinding.Job]') -> str:
    return '%d of %d: %s' % (number, len(to_do), _of(to_do[number - 1].port))


def _of(port: typing.Any) -> str:
    return 'port %s of %s %s, %s' % (
        port.id, port.device_owner, port.device_id, ports.Binding.of(port))
