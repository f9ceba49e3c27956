# shellcheck shell=bash
# What the scripts share: words, what has to be installed, and processes that outlive a script. To be sourced, by bash.

# Folder of start_detached and its sisters; a script that uses them sets it.
state=''

# The top of the source tree.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Oldest Rust that builds this: rust-version in Cargo.toml.
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$top/Cargo.toml")

say() { printf '%s\n' "== $*"; }

fail() {
    printf '%s\n' "${0##*/}: $*" >&2
    exit 1
}

# Runs a command as root, by sudo where we are not.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root and there is no sudo; run as root: $*"
    fi
}

# Whether what a Debian package is wanted for is there, however it came.
have() {
    case $1 in
        build-essential) command -v cc >/dev/null && command -v make >/dev/null ;;
        pkg-config) command -v pkg-config >/dev/null ;;
        libssh-dev) have pkg-config && pkg-config --exists 'libssh >= 0.9.7' ;;
        libssl-dev) have pkg-config && pkg-config --exists openssl ;;
        zlib1g-dev) have pkg-config && pkg-config --exists zlib ;;
        openssh-client) command -v sftp >/dev/null && command -v ssh-keygen >/dev/null ;;
        openssh-server) [ -x /usr/sbin/sshd ] ;;
        python3-matplotlib) /usr/bin/python3 -c 'import matplotlib' 2>/dev/null ;;
        dpkg-dev) command -v dpkg-shlibdeps >/dev/null ;;
        haproxy) [ -x /usr/sbin/haproxy ] ;;
        chromium-driver) command -v chromedriver >/dev/null ;;
        fail2ban) command -v fail2ban-regex >/dev/null ;;
        proftpd-core) [ -x /usr/sbin/proftpd ] ;;
        proftpd-mod-crypto) [ -e /usr/lib/proftpd/mod_sftp.so ] ;;
        proftpd-mod-proxy) [ -e /usr/lib/proftpd/mod_proxy.so ] ;;
        xvfb) command -v Xvfb >/dev/null ;;
        imagemagick) command -v import >/dev/null ;;
        putty-tools) command -v psftp >/dev/null && command -v puttygen >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# Installs those of the given Debian packages whose things are not there.
install_missing() {
    local package missing=()
    for package in "$@"; do
        have "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "not installed: ${missing[*]} (Debian's names). There is no apt-get here: install them with your system's package manager, then run this again"
    say "installing ${missing[*]}"
    without_services apt_install "${missing[@]}"
    for package in "${missing[@]}"; do
        have "$package" || fail "$package is installed but what it is for is not found"
    done
}

apt_install() {
    local options=(-q -y --no-install-recommends -o Dpkg::Use-Pty=0)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" && return
    say "that did not work; reading the package lists first"
    as_root apt-get -q update || fail "apt-get update does not work: is there a network? these are needed: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" ||
        fail "apt-get cannot install what is needed: $*"
}

# We want programs, not services: nobody who tries this out asked for an sshd at port 22.
without_services() {
    local policy=/usr/sbin/policy-rc.d ours='' status=0 unit had=()
    for unit in ssh.service redis-server.service haproxy.service proftpd.service fail2ban.service; do
        if systemctl cat "$unit" >/dev/null 2>&1; then had+=("$unit"); fi
    done
    if [ ! -e $policy ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    ("$@") || status=$?
    [ -z "$ours" ] || as_root rm -f $policy
    [ $status = 0 ] || exit $status
    for unit in ssh.service redis-server.service haproxy.service proftpd.service fail2ban.service; do
        case " ${had[*]-} " in *" $unit "*) continue ;; esac
        if systemctl cat "$unit" >/dev/null 2>&1; then
            as_root systemctl -q disable "$unit" >/dev/null 2>&1 || true
            say "$unit is installed but switched off: only its program is needed"
        fi
    done
}

# Finds a cargo that is new enough; Debian's rustup helps where there is none.
need_rust() {
    export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    rust_fits && return
    if ! command -v rustup >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
        install_missing rustup
    fi
    if command -v rustup >/dev/null; then
        say "installing Rust with rustup"
        rustup toolchain install stable --no-self-update --profile minimal --component rustfmt --component clippy || fail "rustup cannot install Rust"
        rustup default stable >/dev/null 2>&1 || true
    fi
    rust_fits || fail "Rust $rust_needed or newer is needed: install it as https://rustup.rs says, then run this again"
}

rust_fits() {
    local version
    command -v cargo >/dev/null || return 1
    version=$(cd "$top" && cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$version" ] && [ "$(printf '%s\n' "$rust_needed" "$version" | sort -V | head -n 1)" = "$rust_needed" ]
}

# What a build needs.
need_build() {
    install_missing build-essential pkg-config libssh-dev libssl-dev zlib1g-dev
    need_rust
}

# throwaway_sshd HOST_KEY AUTHORIZED_KEYS: the configuration of an sshd on loopback that runs as who runs this and does nothing but SFTP, without a
# port. It refuses an account whose password is locked with "!" unless PAM decides.
throwaway_sshd() {
    local pam=no
    if [ "$(id -u)" = 0 ]; then
        [ -d /run/sshd ] || mkdir -m 755 /run/sshd
        if grep -q '^root:!' /etc/shadow; then pam=yes; fi
    fi
    cat <<END
ListenAddress 127.0.0.1
HostKey "$1"
AuthorizedKeysFile "$2"
PidFile none
StrictModes no
UsePAM $pam
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
ForceCommand internal-sftp
DisableForwarding yes
Subsystem sftp internal-sftp
END
}

# busy_sshd HOST_KEY AUTHORIZED_KEYS FOLDER: the same for many sessions, which start in the folder.
busy_sshd() {
    # The first of two lines counts.
    printf '%s\n' "ForceCommand internal-sftp -d $3" 'MaxStartups 10000' 'UseDNS no' 'LogLevel ERROR'
    throwaway_sshd "$1" "$2"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# await SECONDS COMMAND…: runs the command until it succeeds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

# start_detached NAME COMMAND…: a process that outlives this script; its id in $state/NAME.pid, its words in $state/NAME.log.
start_detached() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$state/$name.log" 2>&1 &
    echo $! >"$state/$name.pid"
}

# Whether the process of this name runs and is ours: a process id alone may be anybody's after a restart of the machine.
runs() {
    local pid
    pid=$(cat "$state/$1.pid" 2>/dev/null) || return 1
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$state/"
}

gone() { ! runs "$1"; }

# Ends the process of this name, if it runs.
stop_detached() {
    if runs "$1"; then
        kill "$(cat "$state/$1.pid")" 2>/dev/null || true
        if ! await 5 gone "$1"; then
            kill "$(cat "$state/$1.pid")" 2>/dev/null || true # the second signal cuts sessions
            await 5 gone "$1" || kill -KILL "$(cat "$state/$1.pid")" 2>/dev/null || true
        fi
    fi
    rm -f "$state/$1.pid"
}
