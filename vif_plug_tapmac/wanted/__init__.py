# SPDX-License-Identifier: Apache-2.0

"""What the caller wants, as values that are valid or do not exist.

Nothing here touches the network. The configuration is resolved while a value
is built. The privileged side builds the value once more from plain fields, and
so checks everything again; it compares what came from the configuration with
its own, and reads the limits that it sets to every caller.
"""
