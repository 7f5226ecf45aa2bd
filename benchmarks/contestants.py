# SPDX-License-Identifier: Apache-2.0

"""Who takes part, and how to have them work."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing

CHECKOUT = pathlib.Path(__file__).parent.parent
_VENVS = CHECKOUT / '.venv'
_CNI = ('/usr/lib/cni/bridge', '/opt/cni/bin/bridge',
        '/usr/libexec/cni/bridge')

#: In this order in tables. What is of tapmac; what others have.
OURS = ('in process', 'guarded', 'privsep')
PEERS = {'Nova 34': 'nova-34', 'linux_bridge 4.3.1': 'os-vif-4.3.1',
         'os-vif 5.3': 'os-vif-5.3.0', 'ip': None, 'CNI': None}
NAMES = ('limit', *OURS, *PEERS)
#: Beside them: tapmac alone, on hosts that have much of something; and where
#: guests are kept to their addresses.
SITUATED, GUARDED, KEPT = 'situated', 'guarded', 'kept'


class Missing(Exception):
    """A contestant cannot take part; says why and what to do."""


def compile_limit(directory: str) -> str:
    """Return the path of the program that limit.c is compiled to."""
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        raise Missing('a C compiler is missing: install gcc and libc6-dev')
    program = os.path.join(directory, 'limit')
    subprocess.run([compiler, '-O2', '-Wall', '-pthread', '-o', program,
                    str(CHECKOUT / 'benchmarks/limit.c')], check=True)
    return program


def require(name: str) -> tuple[str, list[str]]:
    """Return the Python that a contestant needs, and its programs.

    :raises Missing: it cannot take part
    """
    if name == 'CNI':
        for program in _CNI:
            if os.access(program, os.X_OK):
                return sys.executable, [program]
        raise Missing('CNI\'s plugin "bridge" is missing: apt-get install '
                      'containernetworking-plugins')
    venv = PEERS.get(name)
    if venv is None:
        return sys.executable, []
    python = _VENVS / venv / 'bin/python'
    if not python.exists():
        raise Missing('%s is missing: run tools/peers.sh' % python)
    return str(python), []


class Process:
    """A contestant that is ready, on a host of its own.

    :param limit: what :func:`compile_limit` returned
    :param snooping: whether its bridge snoops on multicast
    """

    def __init__(self, name: str, limit: str, snooping: bool) -> None:
        python, programs = require(name)
        self._name = name
        self._directory = tempfile.TemporaryDirectory(
            prefix='tapmac-benchmark-')
        self._log = open(os.path.join(self._directory.name, 'stderr'), 'w+')
        self._process = subprocess.Popen(
            ['unshare', '--net', '--mount', python, '-W', 'ignore',
             str(CHECKOUT / 'benchmarks/peer.py'), name, str(int(snooping)),
             limit, *programs],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, env=dict(
                os.environ, PYTHONPATH=str(CHECKOUT)
                if name in (*OURS, SITUATED, KEPT) else '',
                TMPDIR=self._directory.name))
        self._filled = 0
        try:
            self.works = self._answer()['works']
        except BaseException:
            self.close()
            raise

    def run(self, work: str, first: int = 1, count: int = 1,
            threads: int = 1) -> dict[str, typing.Any]:
        """Have it do this; see :mod:`benchmarks.peer`."""
        assert self._process.stdin is not None
        print(json.dumps({'work': work, 'first': first, 'count': count,
                          'threads': threads}),
              file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, typing.Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError('%s has failed:\n%s'
                               % (self._name, self._said()))
        answer: dict[str, typing.Any] = json.loads(line)
        return answer

    def _said(self) -> str:
        texts = [pathlib.Path(path).read_text() for path in (
            self._log.name, *pathlib.Path(self._directory.name).rglob('log'))]
        return '\n'.join(text[-4000:] for text in texts)

    def fill(self, ports: int) -> None:
        """Have this many ports on the bridge that are not to be touched."""
        if ports > self._filled:
            self.run('fill', self._filled + 1, ports - self._filled)
        self._filled = max(ports, self._filled)

    def close(self) -> None:
        """End it; its host goes with it."""
        for pipe in self._process.stdin, self._process.stdout:
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()
        self._log.close()
        self._directory.cleanup()
