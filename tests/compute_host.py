# SPDX-License-Identifier: Apache-2.0

"""A host of the real kernel that a test enters for a while."""

import contextlib
import threading

from tests import hosts
from vif_plug_tapmac.kernel import netlink as nl

# One thread at a time: to Eventlet, all threads are one for the kernel.
_on_a_host = threading.Lock()


class VisitedHost(hosts.Host):
    """A host that the test's thread enters for a while, and looks at."""

    def _setUp(self):
        with hosts.returning():
            super()._setUp()

    @contextlib.contextmanager
    def entered(self):
        """Be on this host; who is there already may enter again."""
        with hosts.returning():
            hosts.enter(self.namespace)
            yield

    def find(self, name):
        with self.entered():
            return super().find(name)

    def master(self, name):
        with self.entered():
            return super().master(name)


class ComputeHost(VisitedHost):
    """A host that several threads work on, one at a time."""

    @contextlib.contextmanager
    def entered(self):
        """Be on this host, where nobody else is meanwhile."""
        with _on_a_host, super().entered():
            yield

    def master(self, name):
        with self.entered(), nl.Netlink() as netlink:
            return netlink.get(netlink.find(name).master).name
