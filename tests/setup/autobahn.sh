#!/bin/sh
# Install Autobahn's test suite into a directory, whose bin/wstest then runs it.
#
#     tests/setup/autobahn.sh .tools/autobahn
#
# It needs Python 2.7 with C headers (it compiles a small module). In this order: $PYTHON2, a
# python2.7 on PATH, one that pyenv has, and on Debian, as root, that of the last Debian release
# with a Python 2.7. PYTHON2=debian goes straight to the last of these.
#
# $PYTHON is the Python 3 that makes the virtual environment.
set -eu

VERSION=25.10.1
VIRTUALENV=20.21.1 # the last that can make an environment for Python 2.7
LAST_DEBIAN=bullseye

target=$1
here=$(dirname "$0")

works() {
    "$1" -c 'if True:
        import os, sys, sysconfig
        headers = os.path.join(sysconfig.get_config_var("INCLUDEPY"), "Python.h")
        sys.exit(sys.version_info[:2] != (2, 7) or not os.path.exists(headers))
    ' >/dev/null 2>&1
}

find_python2() {
    if [ "${PYTHON2:-}" = debian ]; then
        return 1
    fi
    pyenv_root=$(pyenv root 2>/dev/null || true)
    for candidate in ${PYTHON2:+"$PYTHON2"} python2.7 "$pyenv_root"/versions/2.7*/bin/python2.7; do
        if works "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# The machine's own Debian sources with the old release beside them, in files of our own, so that
# the machine's lists stay as they are. Its own are needed too: the old python2.7 is to be
# installed over today's libc, whose headers must be of the same version.
install_debian_python2() {
    if ! { [ "$(id -u)" = 0 ] && grep -q '^ID=debian$' /etc/os-release 2>/dev/null; }; then
        echo "Autobahn needs Python 2.7 with its C headers: install one, and name it in" \
             "PYTHON2=… if it is neither on PATH nor pyenv's." >&2
        exit 1
    fi
    apt-get update -qq
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=""
    if [ -f "$keyring" ]; then
        signed="[signed-by=$keyring] "
    fi
    apt=$(mktemp -d)
    trap 'rm -rf "$apt"' EXIT
    mkdir "$apt/lists" "$apt/parts"
    # shellcheck disable=SC2016 # apt-get replaces these
    apt-get indextargets --format "deb $signed"'$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | sort -u >"$apt/own.list"
    sed -n "s, $release main\$, $LAST_DEBIAN main,p" "$apt/own.list" >"$apt/old.list"
    if ! [ -s "$apt/old.list" ]; then
        echo "There is no source for Debian $release main to derive that of $LAST_DEBIAN from." >&2
        exit 1
    fi
    sort -u "$apt/own.list" "$apt/old.list" >"$apt/sources.list"
    export DEBIAN_FRONTEND=noninteractive
    set -- -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/parts" \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root
    apt-get "$@" update
    apt-get "$@" install --yes --no-install-recommends python2.7 python2.7-dev >/dev/null
}

sh "$here/system.sh" gcc g++
if ! python2=$(find_python2); then
    echo "No Python 2.7 found: installing Debian's"
    install_debian_python2
    python2=/usr/bin/python2.7
    works "$python2" || { echo "$python2 does not work." >&2; exit 1; }
fi

echo "Installing autobahntestsuite $VERSION for $python2"
rm -rf "$target"
mkdir -p "$target"
"${PYTHON:-python3}" -m venv "$target/virtualenv"
"$target/virtualenv/bin/pip" install -qq --disable-pip-version-check "virtualenv==$VIRTUALENV"
"$target/virtualenv/bin/virtualenv" --quiet --python "$python2" "$target"
"$target/bin/pip" install -qq --disable-pip-version-check --no-python-version-warning \
    "autobahntestsuite==$VERSION"
"$target/bin/wstest" --help >/dev/null
