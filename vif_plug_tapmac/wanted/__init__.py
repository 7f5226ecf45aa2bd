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

"""What the caller wants, as values that are valid or do not exist.

Nothing here touches the network. The configuration is resolved while a value
is built. The privileged side builds the value once more from plain fields, and
so checks everything again; it compares what came from the configuration with
its own, and reads the limits that it sets to every caller.
"""
