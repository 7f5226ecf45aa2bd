#!/bin/sh
# Run the whole test suite: style, types, documentation, and all tests twice,
# with the newest and with the oldest libraries that we admit; but those in
# tests/nova inside each Nova, and those in tests/neutron inside each Neutron.
# group.sh says the rest. Sets up what it needs in .venv/. As root everything
# runs; as another user the tests that need privilege are skipped.
# TAPMAC_NO_SKIP=1 makes each skip a failure. Arguments go to "stestr run", as
# in "tools/test.sh tests.unit"; then the documentation is left out, and only
# where they name tests.nova do they go into the Novas, and only where they
# name tests.neutron into the Neutrons.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
PYTHONWARNINGS=ignore
export PYTHONWARNINGS
[ "$(id -u)" = 0 ] || echo "Not root: functional tests will be skipped." >&2

case $* in
    '') kinds='test nova neutron' ;;
    *tests.nova*) kinds='nova' ;;
    *tests.neutron*) kinds='neutron' ;;
    *) kinds='test' ;;
esac

tools/peers.sh
make_venv test-lowest -c lower-constraints.txt -r test-requirements.txt
make_venv test -r test-requirements.txt
"$venv/bin/flake8"
SHELLCHECK=$venv/bin/shellcheck tools/shellcheck.sh
if is_python_311; then
    "$venv/bin/mypy"
fi
[ $# -gt 0 ] || tools/docs.sh

# Those that take longest come first: our own, then real guests, which are in
# the newest Novas.
groups() {
    for kind in $kinds; do
        if [ "$kind" = test ]; then
            printf '%s\n' test test-lowest
        elif [ "$(id -u)" = 0 ]; then
            peer_venvs "$kind" | sort -r
        fi
    done
}

# Several at a time, because they also wait.
rm -rf .venv/log
mkdir .venv/log
failed=0
groups | xargs -P $(($(nproc) + 2)) -I GROUP tools/group.sh GROUP "$@" \
    || failed=1

cat .venv/log/* | awk -v failed=$failed '
    /^ - (Passed|Skipped|Failed|Unexpected Success): / { sum[$2] += $NF }
    END {
        sum["Failed:"] += sum["Unexpected"]
        printf "%d passed, %d failed, %d skipped\n",
            sum["Passed:"], sum["Failed:"], sum["Skipped:"]
        exit failed || sum["Failed:"] || !sum["Passed:"]
    }'
