# shellcheck shell=sh
# For the scripts beside: private virtual environments with this checkout in
# them. To be sourced from the top of the checkout. What takes long says so, and
# what fails says why in one sentence; the next run goes on there.

die() {
    echo "$0: $*" >&2
    exit 1
}

setup_log=.venv/log/setup

# Whoever runs the scripts of a checkout trusts it, also when it is another
# user's; pbr asks git for the version. An archive has no git to ask.
GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD
export GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
if [ ! -e .git ] && [ ! -e PKG-INFO ]; then
    export PBR_VERSION="${PBR_VERSION:-$(sed -n 's/^version = //p' setup.cfg)}"
fi

# Where ip, nft and sysctl are, which not every user of Debian looks for there.
PATH=$PATH:/usr/sbin:/sbin

# What is imported again and again is compiled once.
unset PYTHONDONTWRITEBYTECODE

# What, by the words of a program that failed, is wrong: a part of a sentence.
why_it_failed() {
    # A full disk has no room for the words either.
    if grep -qiE 'no space left|disk quota' "$setup_log" ||
        ! head -c 1000000 /dev/zero 2> /dev/null > "$setup_log.room"
    then
        echo 'the disk is full'
    elif grep -qi 'read-only file system' "$setup_log"; then
        echo 'something it has to write is read-only'
    elif grep -qiE 'resolv|dns|unreachable|refused|timed? ?out|\(connect\)|connection|certificate|network' "$setup_log"
    then
        echo 'where packages come from cannot be reached: is there a network, and does it need a proxy?'
    elif grep -qiE 'unable to locate|no matching distribution|not found in the package registry|no solution found|404|hash|invalid|bad (request|gateway)|50[0-9]' "$setup_log"
    then
        echo 'where packages come from does not have what is needed, or is broken'
    else
        tail -n 1 "$setup_log" 2> /dev/null
    fi
    rm -f "$setup_log.room"
}

# step WHAT COMMAND...: say what is done, and every 20 seconds that it is still
# being done. What the command says is kept, and only told when it fails.
step() {
    what=$1
    shift
    echo "$what" >&2
    { mkdir -p "${setup_log%/*}" && true > "$setup_log"; } 2> /dev/null ||
        die "cannot write in $PWD/.venv; is the checkout somebody else's, read-only, or the disk full?"
    # The input of what is in the background would be another.
    { "$@" <&3 3<&- > "$setup_log" 2>&1 & } 3<&0
    pid=$! tenths=0 status=0
    while kill -0 $pid 2> /dev/null; do
        sleep 0.1
        tenths=$((tenths + 1))
        [ $((tenths % 200)) != 0 ] || echo "$what: for $((tenths / 10)) s now" >&2
    done
    wait $pid || status=$?
    [ $status = 0 ] || die "$what: failed, $(why_it_failed). Mend that and run this again: it goes on here. The command was \"$*\"; what it said is in $setup_log."
}

# apt_get ARGUMENT... PACKAGE...: with fresh package lists if it has to be.
apt_get() {
    [ -x /usr/bin/apt-get ] || die "needs what Debian has as: $*. This system has no apt-get: install it as is done here."
    can_install || die "something is missing, and this user may not install it; run: sudo apt-get $*"
    step "apt-get $*" apt_get_twice "$@"
}

apt_get_twice() {
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    /usr/bin/apt-get -q "$@" || {
        /usr/bin/apt-get update -q && /usr/bin/apt-get -q "$@"
    }
}

# Leave in $site where this machine gets Debian's packages, as apt tells once it
# has lists.
find_site() {
    ask_for_site
    [ "$site" ] || ! can_install || step 'apt-get update' /usr/bin/apt-get update -q
    [ "$site" ] || ask_for_site
    [ "$site" ] || die 'what is needed is Debian'"'"'s, and this machine has no package lists of Debian'"'"'s'
}

ask_for_site() {
    # shellcheck disable=SC2016 # It is apt that replaces this.
    site=$(apt-get indextargets --format '$(SITE)' | sed -n 's,/debian/*$,&,p' |
        head -n 1)
    site=${site%/}
}

# unpack DIRECTORY PACKAGE...: never installed, only unpacked: what starts by
# itself would change this machine. It comes also where it is installed.
unpack() {
    directory=$PWD/.venv/$1
    shift
    if [ -d "$directory/root" ] || [ ! -x /usr/bin/apt-get ] || ! can_install
    then
        return
    fi
    rm -rf "$directory/unpacked"
    mkdir -p "$directory/partial" "$directory/unpacked"
    apt_get install -y --download-only --no-install-recommends --reinstall \
        -o "Dir::Cache::archives=$directory" "$@"
    for package in "$directory"/*.deb; do
        dpkg-deb -x "$package" "$directory/unpacked"
    done
    rm "$directory"/*.deb
    mv "$directory/unpacked" "$directory/root"
}

# Whether this user installs packages: root, and not a root without powers.
# CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETGID, CAP_SETUID
can_install() {
    [ "$(id -u)" = 0 ] || return
    caps=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
    [ $((0x$caps & 0xcb)) = $((0xcb)) ] && ! in_user_namespace
}

# In one, users and devices are not what they are outside.
in_user_namespace() {
    ! grep -qE '^ *0 +0 +4294967295$' /proc/self/uid_map 2> /dev/null
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
    die "needs Python 3.10 or newer; ${PYTHON:-python3} is $("${PYTHON:-python3}" -V 2> /dev/null || echo missing). PYTHON=/path/to/python3 names another"
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
    has_pip || apt_get install -y "$("$python" -c 'import sys
print("python3-venv" if sys.executable == "/usr/bin/python3"
      else "python%d.%d-venv" % sys.version_info[:2])')"
    has_pip || die "$python has no ensurepip, which makes virtual environments; PYTHON=/path/to/python3 names another"
    step 'Setting up .venv/uv' make_uv
}

has_pip() {
    "$python" -c 'import ensurepip, venv' 2> /dev/null
}

make_uv() {
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
            tests/neutron/requirements/*.txt \
            tests/cloud/requirements.txt; } | cksum)
    [ "$(cat "$venv/stamp" 2> /dev/null)" = "$stamp" ] && return
    step "Setting up .venv/${venv##*/}" fill_venv "$@"
    echo "$stamp" > "$venv/stamp"
}

# uv does not read what pip is told of where packages come from.
fill_venv() {
    index=$(.venv/uv/bin/python -m pip config get global.index-url 2> /dev/null) || :
    index=${PIP_INDEX_URL:-$index}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
    cert=$(.venv/uv/bin/python -m pip config get global.cert 2> /dev/null) || :
    cert=${PIP_CERT:-$cert}
    [ -z "$cert" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"
    "$uv" venv -q --clear --seed --python "$(command -v "$python")" "$venv" &&
        "$uv" pip install -q --python "$venv" "$@"
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
