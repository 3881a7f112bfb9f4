#!/bin/sh
# Make sure that programs which no virtual environment can bring are there.
#
#     tests/setup/system.sh chromium node npm
#
# On Debian, as root, those that are missing are installed; elsewhere they are named, and it fails.
# Some are no programs: "venv" is Python's module, which Debian packages by itself, "libatomic" a
# library that the Node.js inside Playwright's Linux package needs and does not bring, "gorilla" and
# "nhooyr" are Go's libraries of that name, and "mojolicious" is Perl's. "systemd" is some programs of
# that package. To install it starts nothing, and does not make it the init system.
set -eu

is_there() {
    case $1 in
        venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
        # Debian has servers where only root looks for programs.
        nginx | haproxy) PATH="$PATH:/usr/local/sbin:/usr/sbin" command -v "$1" >/dev/null ;;
        libatomic) [ "$(uname)" != Linux ] || PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q 'libatomic\.so\.1' ;;
        gorilla) [ -d /usr/share/gocode/src/github.com/gorilla/websocket ] ;;
        nhooyr) [ -d /usr/share/gocode/src/nhooyr.io/websocket ] ;;
        mojolicious) perl -MMojolicious -e 1 2>/dev/null ;;
        systemd) command -v systemd-socket-activate >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

package_of() {
    case $1 in
        node) echo nodejs ;;
        venv) echo python3-venv ;;
        libatomic) echo libatomic1 ;;
        tinyproxy) echo tinyproxy-bin ;; # without the service
        go) echo golang-go ;;
        gorilla) echo golang-github-gorilla-websocket-dev ;;
        nhooyr) echo golang-nhooyr-websocket-dev ;;
        mojolicious) echo libmojolicious-perl ;;
        javac) echo default-jdk-headless ;;
        *) echo "$1" ;;
    esac
}

missing=""
packages=""
for program in "$@"; do
    if ! is_there "$program"; then
        missing="$missing $program"
        packages="$packages $(package_of "$program")"
    fi
done

if [ -z "$missing" ]; then
    exit 0
fi

if ! { [ "$(id -u)" = 0 ] && grep -q '^ID=debian$' /etc/os-release 2>/dev/null; }; then
    echo "Missing:$missing. Please install:$packages (as Debian calls them), and try again." >&2
    exit 1
fi

echo "Installing:$packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# No "recommended" packages: Chromium's and npm's are hundreds, none of them needed here.
# shellcheck disable=SC2086 # a list of words
apt-get install -qq --yes --no-install-recommends $packages >/dev/null

for program in "$@"; do
    is_there "$program" || { echo "$program is still missing after that." >&2; exit 1; }
done
