# SPDX-License-Identifier: Apache-2.0

"""A host that is never quiet: a hundred times a second something changes.

Links, addresses, entries of an FDB, tables of nftables, and domains. None of
it is wrong, and none of it is tapmac's.
"""

import contextlib
import itertools
import os
import socket
import threading
import time
import typing

import fixtures
import pyroute2
from pyroute2.nftables import main as nftables

_PAUSE = 0.01
_MAC = '02:aa:00:00:%02x:%02x'


class Churn(fixtures.Fixture):
    """Everything comes and goes, from a thread in this network namespace.

    :param port: a port of the bridge whose FDB is to change; nobody else's
    :param define: has the domains of libvirt defined, with a number that
        changes; None: there is no libvirt
    :ivar count: how often something has changed
    :ivar error: what ended it before its time
    """

    def __init__(self, port: str,
                 define: typing.Callable[[int], None] | None) -> None:
        super().__init__()
        self._port, self._define = port, define
        self.count = 0
        self.error: BaseException | None = None

    def _setUp(self) -> None:
        self._over = threading.Event()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self._over.set)

    def _run(self) -> None:
        try:
            with (pyroute2.IPRoute() as ip, nftables.NFTables(
                    nfgen_family=socket.AF_INET) as nft):
                port = ip.link_lookup(ifname=self._port)[0]
                changes = [self._link(ip), self._address(ip, port),
                           self._entry(ip, port), self._table(nft)]
                if self._define is not None:
                    changes.append(self._domain(self._define))
                for change in itertools.cycle(changes):
                    if self._over.is_set():
                        return
                    next(change)
                    self.count += 1
                    time.sleep(_PAUSE)
        except BaseException as error:
            self.error = error

    def _link(self, ip: typing.Any) -> typing.Iterator[None]:
        for number in itertools.count():
            ip.link('add', ifname='churn%d' % (number % 10000), kind='bridge')
            yield
            ip.link('del', ifname='churn%d' % (number % 10000))
            yield

    def _address(self, ip: typing.Any, port: int) -> typing.Iterator[None]:
        while True:
            for action in 'add', 'del':
                ip.addr(action, index=port, address='192.0.2.77', mask=24)
                yield

    def _entry(self, ip: typing.Any, port: int) -> typing.Iterator[None]:
        for number in itertools.count():
            mac = _MAC % (number >> 8 & 255, number & 255)
            for action in 'add', 'del':
                ip.fdb(action, ifindex=port, lladdr=mac)
                yield

    def _table(self, nft: typing.Any) -> typing.Iterator[None]:
        while True:
            for action in 'add', 'del':
                nft.table(action, name='churn')
                yield

    def _domain(self, define: typing.Callable[[int], None],
                ) -> typing.Iterator[None]:
        for number in itertools.count():
            define(number)
            yield


def replace(path: str | os.PathLike[str], text: str) -> None:
    """Write a file so that whoever reads it has the old or the new one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink('%s.new' % path)
    with open('%s.new' % path, 'w') as opened:
        opened.write(text)
    os.replace('%s.new' % path, path)
