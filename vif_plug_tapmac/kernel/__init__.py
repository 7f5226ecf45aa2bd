# SPDX-License-Identifier: Apache-2.0

"""Everything that changes the host, and so runs as root.

No configuration, no VIFs and no privsep in here: values from
:mod:`vif_plug_tapmac.wanted` come in, the kernel's answers go out.
"""
