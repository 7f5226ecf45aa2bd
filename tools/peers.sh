#!/bin/sh
# Set up what some tests run against: os-vif alone, and, for root only, because
# their tests need it, Nova, Neutron, and what programs.sh, packages.sh,
# neutron.sh and services.sh do.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

tools/programs.sh

# What its own unit tests need beside it is testtools.
make_bare_venv os-vif-4.3.1 os-vif==4.3.1 testtools
if is_python_311; then
    make_bare_venv os-vif-5.3.0 os-vif==5.3.0 testtools
fi

can_install || exit 0

for name in $(peer_venvs nova) $(peer_venvs neutron); do
    make_peer_venv "$name"
done

tools/packages.sh
tools/neutron.sh
if is_python_311; then
    tools/services.sh
else
    tools/guests.sh
fi
