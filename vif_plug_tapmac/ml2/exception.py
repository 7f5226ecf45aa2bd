# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What the mechanism driver refuses, and with which words."""

from neutron_lib import exceptions


class InvalidConfig(exceptions.NeutronException):
    """neutron-server must not start with this configuration."""
    message = ('[ml2_tapmac] %(option)s = %(value)s: %(reason)s. The operator '
               'must correct the configuration.')


class NotEnforced(exceptions.BadRequest):
    """Who asks for this would believe that it is so (400)."""
    message = ('Port %(port)s on host %(host)s cannot have %(feature)s: '
               'nothing enforces this for ports that the mechanism driver '
               'tapmac binds. %(remedy)s.')
