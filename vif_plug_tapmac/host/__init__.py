# SPDX-License-Identifier: Apache-2.0

"""What is on this host, what is wrong with it, and having that mended.

Nobody needs to be root to look; what changes something (mending) asks the
privileged side to do it.
"""
