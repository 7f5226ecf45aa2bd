# SPDX-License-Identifier: Apache-2.0

import setuptools

# pbr has no words for an SPDX expression (PEP 639).
setuptools.setup(setup_requires=['pbr>=6.1.0'], pbr=True,
                 license_expression='Apache-2.0')
