#!/bin/sh
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
PYTHONWARNINGS=ignore
export PYTHONWARNINGS
since=$(date +%s)

usage() {
    cat <<'USAGE'
Usage: tools/test.sh [--all] [--only GROUP] [TEST...]
       tools/test.sh --kernels [VERSION...] [TEST...]

Check style and types and run the tests, in some minutes: all that a change
needs, with the newest libraries. Sets up what it needs in .venv/.

  --all         as before a change lands: with the oldest libraries, too, inside
                each Nova and each Neutron, with real guests, in a small cloud,
                with all that takes its time, and the documentation; then
                --kernels without most of what this machine's own kernel runs.
                As root, on Debian; needs 6 GB of disk, 8 GB of memory, and an hour.
  --kernels     what depends on the kernel, on those of Debian that are named, as
                5.10 or 6.1, under QEMU; without names, on 6.1, and what matters
                most on 5.10, 6.12 and 7.3
  --only GROUP  only what runs in .venv/GROUP, or is a check of that name
  TEST          part of a name, as tests.unit or tests.nova.test_routes: a
                regular expression; those of tests.nova and tests.neutron run
                inside each of these

Without root, in a user namespace if the kernel permits; what cannot run is
skipped, and counted by reason. TAPMAC_NO_SKIP=1 makes that a failure;
TAPMAC_LONG=1 takes what is long in its longest form. Logs are in .venv/log/.
Exit status: 0 if nothing failed, else 1.
USAGE
}

# Of Debian 12 and 11, and of Debian 13 and its backports.
default_kernels() {
    kernels=6.1 core='5.10 6.12 7.3'
}

all='' only='' kernels='' core='' each_somewhere=''
while [ $# -gt 0 ]; do
    case $1 in
        --all) all=1 ;;
        --kernels)
            while [ $# -gt 1 ]; do
                case $2 in
                    [0-9]*) kernels="$kernels $2" ;;
                    *) break ;;
                esac
                shift
            done
            [ "$kernels" ] || default_kernels
            ;;
        --only)
            [ $# -gt 1 ] || { usage >&2; exit 2; }
            only=$2
            shift
            ;;
        -h | --help) usage; exit ;;
        --) shift; break ;;
        -*) usage >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done

peers() {
    ! can_install || peer_venvs "$1"
}
checks='flake8 shellcheck bandit licenses'
! { find_python && is_python_311; } || checks="$checks mypy"
case $only$* in
    *tests.nova*) groups=$(peers nova) ;;
    *tests.neutron*) groups=$(peers neutron) ;;
    *)
        groups='test'
        if [ "$all" ]; then
            groups="test test-lowest $(peers nova) $(peers neutron)"
            [ $# -gt 0 ] || checks="$checks docs"
            [ $# = 0 ] || groups='test test-lowest'
        fi
        ;;
esac
if [ "$kernels" ]; then
    groups='' checks=''
elif [ "$all" ] && [ $# = 0 ] && can_install; then
    default_kernels
    each_somewhere=--each-somewhere
fi
if [ "$only" ]; then
    groups=$only checks='' kernels='' core='' each_somewhere=''
    case $only in
        flake8 | shellcheck | bandit | licenses | mypy | docs) groups='' checks=$only ;;
    esac
fi

# Set up what these need, and nothing else.
# shellcheck disable=SC2086 # These are several, or none.
[ ! "$kernels" ] || tools/kernel_image.sh $kernels $core
case $groups in
    '' | test) tools/programs.sh ;;
    *) tools/peers.sh ;;
esac
case " $groups " in
    *' test-lowest '*)
        make_venv test-lowest -c lower-constraints.txt -r test-requirements.txt
        ;;
esac
case $checks in
    *docs*) make_venv docs -r doc/requirements.txt ;;
esac
make_venv test -r test-requirements.txt

[ -z "$all" ] || export TAPMAC_ALL=1
# shellcheck disable=SC2086 # These are several.
exec "$venv/bin/python" tools/run_tests.py --since "$since" \
    $each_somewhere --checks $checks --groups $groups --kernels $kernels --kernels-core $core \
    -- "$@"
