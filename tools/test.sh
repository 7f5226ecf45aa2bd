#!/bin/sh
# Run the whole test suite: style, types, documentation, and all tests twice,
# with the newest and with the oldest libraries that we admit; but those in
# tests/nova inside each Nova, and those in tests/neutron inside each Neutron.
# Sets up what it needs in .venv/. As root everything runs; as another user the
# tests that need privilege are skipped. TAPMAC_NO_SKIP=1 makes each skip a
# failure. Arguments go to "stestr run", as in "tools/test.sh tests.unit"; then
# the documentation is left out, and only where they name tests.nova do they go
# into the Novas, and only where they name tests.neutron into the Neutrons.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
PYTHONWARNINGS=ignore
export PYTHONWARNINGS
[ "$(id -u)" = 0 ] || echo "Not root: functional tests will be skipped." >&2

failed=0
passed_sum=0 failed_sum=0 skipped_sum=0

# run_tests DIRECTORY ARGUMENT...: its tests in $venv; adds to the sums.
run_tests() {
    directory=$1
    shift
    "$venv/bin/stestr" --test-path "$directory" run "$@" || failed=1
    totals=$("$venv/bin/stestr" last | sed -n \
        's/^ - \(Passed\|Skipped\|Failed\|Unexpected Success\): /\1 /p')
    while read -r word count; do
        case $word in
            Passed) passed_sum=$((passed_sum + count)) ;;
            Skipped) skipped_sum=$((skipped_sum + count)) ;;
            '') echo "stestr gave no totals" >&2; failed=1 ;;
            *) failed_sum=$((failed_sum + ${count##* })) ;;
        esac
    done <<TOTALS
$totals
TOTALS
}

case $* in
    '') plain=1 peers='nova neutron' ;;
    *tests.nova*) plain=0 peers=nova ;;
    *tests.neutron*) plain=0 peers=neutron ;;
    *) plain=1 peers= ;;
esac

tools/peers.sh
make_venv test -r test-requirements.txt
"$venv/bin/flake8"
SHELLCHECK=$venv/bin/shellcheck tools/shellcheck.sh
if is_python_311; then
    "$venv/bin/mypy"
fi
[ $# -gt 0 ] || tools/docs.sh
if [ $plain = 1 ]; then
    run_tests ./tests "$@"
    make_venv test-lowest -c lower-constraints.txt -r test-requirements.txt
    run_tests ./tests "$@"
fi
for kind in $peers; do
    [ "$(id -u)" = 0 ] || break
    for name in $(peer_venvs "$kind"); do
        make_peer_venv "$name"
        echo "Inside $name" >&2
        run_tests "./tests/$kind" "$@"
    done
done

echo "$passed_sum passed, $failed_sum failed, $skipped_sum skipped"
[ "$passed_sum" -gt 0 ] && [ "$failed_sum" = 0 ] && exit $failed
exit 1
