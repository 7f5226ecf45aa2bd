# SPDX-License-Identifier: Apache-2.0

"""How fast ports come and go, beside the kernel's limit and beside others.

As root: ``python -m benchmarks``, see ``--help``. What it measures, and one
run, are in doc/source/performance.rst.
"""
