#!/bin/sh
# group.sh NAME ARGUMENT...: run the tests that are for the virtual environment
# .venv/NAME, with these arguments for "stestr run". What they say is shown at
# their end, because other groups run meanwhile, and stays in .venv/log/.
set -eu
cd "$(dirname "$0")/.."
name=$1
shift
venv=.venv/$name log=.venv/log/$name

case $name in
    nova-* | neutron-*) tests=./tests/${name%%-*} ;;
    *) tests=./tests ;;
esac
# Real guests must not wait for what keeps the processors busy.
case $name in
    nova-33 | nova-34) nice='' ;;
    *) nice='nice -n 19' ;;
esac
# What these tests run never sees the old libraries: packages are built, and
# Nova and os-vif run, in other environments. Or it is about the kernel, or a
# document, and takes long.
if [ "$name $#" = 'test-lowest 0' ]; then
    set -- --exclude-regex "tests.(integration.test_(package|os_vif_suite|nova\
|getting_started|deploying|troubleshooting)\
|functional.test_(benchmark|churn|strangers|interference|sigkill)\
|faults.test_(scale|soak|steps))"
fi

echo "$tests in $venv: started" >&2
status=0
{
    echo "$tests in $venv"
    $nice "$venv/bin/stestr" --test-path "$tests" --repo-url "$venv" run \
        --concurrency $((($(nproc) + 1) / 2)) "$@"
} > "$log" 2>&1 || status=$?
flock .venv cat "$log"
exit $status
