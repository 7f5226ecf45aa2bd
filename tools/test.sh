#!/bin/sh
# Run the whole test suite: style, types, and all tests twice, with the newest
# and with the oldest libraries that we admit. Sets up what it needs in .venv/.
# As root everything runs; as another user the tests that need privilege are
# skipped. TAPMAC_NO_SKIP=1 makes each skip a failure. Arguments go to "stestr
# run", as in "tools/test.sh tests.unit".
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
PYTHONWARNINGS=ignore
export PYTHONWARNINGS
[ "$(id -u)" = 0 ] || echo "Not root: functional tests will be skipped." >&2

failed=0
passed_sum=0 failed_sum=0 skipped_sum=0

# run_tests ARGUMENT...: all tests in $venv; adds to the sums.
run_tests() {
    "$venv/bin/stestr" run "$@" || failed=1
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

tools/peers.sh
make_venv test -r test-requirements.txt
"$venv/bin/flake8"
# The libraries have types from releases on that need Python 3.11.
if "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
then
    "$venv/bin/mypy"
fi
run_tests "$@"
make_venv test-lowest -c lower-constraints.txt -r test-requirements.txt
run_tests "$@"

echo "$passed_sum passed, $failed_sum failed, $skipped_sum skipped"
[ "$passed_sum" -gt 0 ] && [ "$failed_sum" = 0 ] && exit $failed
exit 1
