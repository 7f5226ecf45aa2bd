# SPDX-License-Identifier: Apache-2.0

"""``tapmac-agent``: security groups come from Neutron to this host's bridges.

A process of its own, without privilege. Nobody else loads this, and without it
the plugin works as before.
"""
