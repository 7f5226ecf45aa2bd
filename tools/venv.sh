# shellcheck shell=sh
# For the scripts beside: private virtual environments with this checkout in
# them. To be sourced from the top of the checkout.

die() {
    echo "$0: $*" >&2
    exit 1
}

# apt_get ARGUMENT... PACKAGE...: with fresh package lists if it has to be.
apt_get() {
    apt=/usr/bin/apt-get
    [ -x $apt ] || die "needs apt-get for: $*. Install the like for this system."
    [ "$(id -u)" = 0 ] || die "missing; run: sudo apt-get $*"
    echo "apt-get $*" >&2
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    { $apt -q "$@" || { $apt update -q && $apt -q "$@"; }; } > /dev/null \
        || die "failed: apt-get $*"
}

# The first python3 that is new enough and can make virtual environments.
find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}
    do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
            2> /dev/null
        then
            return
        fi
    done
    die 'needs Python 3.10 or newer'
}

# Libraries have types, os-vif 5 and Nova 34 exist, for Python 3.11 and newer.
is_python_311() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

# Leave in $uv what does pip's work in a tenth of the time.
find_uv() {
    uv=$PWD/.venv/uv/bin/uv
    find_python
    [ -x "$uv" ] && return
    command -v git > /dev/null || apt_get install -y git
    "$python" -c 'import ensurepip, venv' 2> /dev/null \
        || apt_get install -y "$("$python" -c 'import sys
print("python3-venv" if sys.executable == "/usr/bin/python3"
      else "python%d.%d-venv" % sys.version_info[:2])')"
    "$python" -m venv --clear .venv/uv
    .venv/uv/bin/python -m pip install -q --disable-pip-version-check uv
}

# make_venv NAME ARGUMENT...: leave its directory in $venv; the arguments are
# those of "uv pip install". A second run with nothing changed that matters to
# it changes nothing.
make_venv() {
    find_uv
    # What the command line says uv builds anew each time, what a file says not.
    make_bare_venv "$@" -r - <<THIS_CHECKOUT
-e .
THIS_CHECKOUT
}

# make_bare_venv NAME ARGUMENT...: the same without this checkout in it.
make_bare_venv() {
    venv=$PWD/.venv/$1
    shift
    find_uv
    stamp=$({ "$python" -VV; echo "$@"
        cat setup.cfg pyproject.toml ./*requirements.txt \
            doc/requirements.txt lower-constraints.txt tests/nova/requirements/*.txt \
            tests/neutron/requirements/*.txt; } | cksum)
    [ "$(cat "$venv/stamp" 2> /dev/null)" = "$stamp" ] && return
    echo "Setting up $venv" >&2
    "$uv" venv -q --clear --seed --python "$(command -v "$python")" "$venv"
    "$uv" pip install -q --python "$venv" "$@"
    echo "$stamp" > "$venv/stamp"
}

# peer_venvs KIND: the names of those that this Python can have, as in tox.ini,
# for tests inside each "nova" or "neutron".
peer_venvs() {
    find_python
    for file in "tests/$1/requirements"/[0-9]*.txt; do
        if is_python_311 || ! grep -q '^# Python 3.11 or newer$' "$file"; then
            file=${file##*/}
            echo "$1-${file%.txt}"
        fi
    done
}

# make_peer_venv NAME
make_peer_venv() {
    make_venv "$1" -r "tests/${1%%-*}/requirements/${1#*-}.txt"
}
