# SPDX-License-Identifier: Apache-2.0

"""``tapmac complete``: what bash needs to complete a command line.

All that the parsers of the commands say is written into it, so that nothing
but bash runs when somebody presses the tab key. TAPs and bridges are read from
/sys, ports and MACs from what is written on TAPs there.
"""

import argparse
import typing

from cliff import command

#: What completes a value, by how a parser calls it.
_KINDS = {'TAP': 'taps', 'DEVICE': 'taps bridges', 'BRIDGE': 'bridges',
          'UUID': 'vifs', 'MAC': 'macs', 'FILE': 'files'}

_SCRIPT = '''\
# shellcheck shell=bash
#
# Completion of tapmac in bash, made by "tapmac complete": commands, options,
# TAPs, bridges, ports and MACs of this host. Have it in
# /etc/bash_completion.d, or have bash read it.

# Print what is there: of TAPs of tapmac, by what is written on them.
_tapmac_there() {
    local device text kind
    for device in /sys/class/net/*; do
        for kind; do
            case $kind in
                bridges)
                    [[ ! -d $device/bridge ]] || echo "${device##*/}"
                    continue
                    ;;
            esac
            [[ -e $device/tun_flags ]] || continue
            text=
            read -r text 2> /dev/null < "$device/ifalias" || continue
            # tapmac:1:<id of the port>:<six octets>:<bridge>:<time>
            [[ $text == tapmac:1:* ]] || continue
            text=${text#tapmac:1:}
            case $kind in
                taps) echo "${device##*/}" ;;
                vifs) echo "${text%%:*}" ;;
                macs) text=${text#*:} && echo "${text:0:17}" ;;
            esac
        done
    done
}

_tapmac() {
    local line=${COMP_LINE-} words word current previous=''
    local command='' candidates=() kinds=''
    # By spaces only: for bash, a colon in a MAC begins a new word. What calls
    # this for others than bash may have words only.
    line=${line:0:${COMP_POINT-0}}
    line=${line:-${COMP_WORDS[*]:0:COMP_CWORD+1}}
    read -r -a words <<< "$line"
    [[ $line != *[[:space:]] ]] || words+=('')
    current=${words[-1]}
    [[ ${#words[@]} -lt 3 ]] || previous=${words[-2]}
    for word in "${words[@]:1:${#words[@]}-2}"; do
        if [[ ' @COMMANDS@ ' == *" $word "* ]]; then
            command=$word
            break
        fi
    done
    case "$command $current" in
@OPTIONS@
    esac
    case "$command $previous" in
@VALUES@
    esac
    COMPREPLY=()
    if [[ $kinds == files ]]; then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
    fi
    # shellcheck disable=SC2086 # These are several.
    [[ -z $kinds ]] || mapfile -t candidates < <(_tapmac_there $kinds)
    # What is before the last colon is there already, if a colon ends words.
    line=
    [[ $COMP_WORDBREAKS != *:* ]] || line=${current%"${current##*:}"}
    for word in "${candidates[@]}"; do
        # A name of a device may be anything, also what a shell would do.
        [[ $word != "$current"* || $word == *[^A-Za-z0-9_.:-]* ]] ||
            COMPREPLY+=("${word#"$line"}")
    done
}
complete -F _tapmac tapmac
'''


class Complete(command.Command):
    """Print what completes the command line in bash.

    Commands, options, TAPs, bridges, and the ports and MACs that are written
    on TAPs are completed, by bash alone. Have bash read it:
    "source <(tapmac complete)", or write it to /etc/bash_completion.d/tapmac.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        parsers = {name: self._parser(name)
                   for name, _ in sorted(self.app.command_manager)}
        everywhere = {'': self.app.parser, **parsers}
        self.app.stdout.write(
            _SCRIPT.replace('@COMMANDS@', ' '.join(parsers))
            .replace('@OPTIONS@', '\n'.join(
                _options(name, parser, list(parsers))
                for name, parser in everywhere.items()))
            .replace('@VALUES@', '\n'.join(
                line for name, parser in everywhere.items()
                for line in _values(name, parser))))

    def _parser(self, name: str) -> argparse.ArgumentParser:
        made, _, _ = self.app.command_manager.find_command([name])
        command_of_it = made(self.app, self.app_args)
        self.app.prepare_to_run_command(command_of_it)
        return command_of_it.get_parser(name)


def _options(name: str, parser: argparse.ArgumentParser,
             commands: list[str]) -> str:
    """Return what completes a word that is no value of an option.

    An option, if it begins as one; else what the command is about.
    """
    options = ' '.join(option for action in _actions(parser)
                       for option in action.option_strings
                       if option.startswith('--'))
    what = 'candidates=(%s)' % ' '.join(commands if name in ('', 'help')
                                        else ())
    for action in parser._get_positional_actions():
        if action.metavar in _KINDS:
            what = "kinds='%s'" % _KINDS[str(action.metavar)]
    return ("        '%s '-*) candidates=(%s) ;;\n        '%s '*) %s ;;"
            % (name, options, name, what))


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a parser takes, but for the details of cliff's formats."""
    return [action for group in parser._action_groups
            if not str(group.title).lower().endswith(' formatter')
            for action in group._group_actions]


def _values(name: str,
            parser: argparse.ArgumentParser) -> typing.Iterator[str]:
    """Yield what completes the values of options, of those that have some."""
    for action in _actions(parser):
        if not action.option_strings or action.nargs == 0:
            continue
        kind = _KINDS.get(str(action.metavar), '')
        words = ' '.join(map(str, action.choices or ()))
        yield "        %s) candidates=(%s) kinds='%s' ;;" % (
            '|'.join("'%s %s'" % (name, option)
                     for option in action.option_strings), words, kind)
