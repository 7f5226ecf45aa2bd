# SPDX-License-Identifier: Apache-2.0

"""The command ``tapmac-migrate``: ports that another driver bound come to us.

It speaks with Neutron's and Nova's REST API only, from wherever these can be
reached, and needs nothing of a compute host.
"""
