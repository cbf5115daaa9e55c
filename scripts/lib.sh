# Shared by the scripts of this folder; sourced, not run. POSIX sh.

# Folder of the project.
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "needs root or sudo for: $*"
    fi
}

# Whether a RabbitMQ server is where the program looks for it.
has_rabbitmq() {
    [ -n "${RABBITMQ_SERVER:-}" ] && [ -x "$RABBITMQ_SERVER" ] && return 0
    for file in /usr/lib/rabbitmq/bin/rabbitmq-server \
        /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server \
        /opt/rabbitmq/sbin/rabbitmq-server /opt/rabbitmq_server-*/sbin/rabbitmq-server; do
        [ -x "$file" ] && return 0
    done
    return 1
}

# The C library's headers come apart from the compiler.
has_compiler() {
    has cc && echo 'int main(void) { return 0; }' | cc -x c -include stdlib.h -o /dev/null - 2>/dev/null
}

# Installs Debian packages. A package's service is not started: nothing here uses it, and it
# would take the standard ports. A policy file that is there already is left as it is.
apt_install() {
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e "$policy" ]; then
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
        made=1
    fi
    result=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "$@" >&2 || result=$?
    [ -z "$made" ] || as_root rm -f "$policy"
    return "$result"
}

# A stock Python client takes part in one of the tests.
has_pika() {
    /usr/bin/python3 -c 'import pika' 2>/dev/null || python3 -c 'import pika' 2>/dev/null
}

# A foreign XMPP server takes part in another one. Not by `prosody --version`, which would start it.
has_prosody() { has prosody; }

# Installs what is missing of RabbitMQ, a C compiler, Python's pika and Prosody.
install_missing() {
    packages=
    has_compiler || packages="gcc libc6-dev"
    has_rabbitmq || packages="$packages rabbitmq-server"
    has_pika || packages="$packages python3-pika"
    has_prosody || packages="$packages prosody"
    [ -n "$packages" ] || return 0
    if ! has apt-get; then
        die "please install a C compiler, Python 3 with pika, Prosody, and RabbitMQ 3.10 or later with its" \
            "management and federation plug-ins (missing here, as Debian calls them: $packages), or set" \
            "RABBITMQ_SERVER to the path of the script rabbitmq-server"
    fi
    say "installing $packages"
    # shellcheck disable=SC2086 # a list of words
    apt_install $packages || die "could not install $packages"
    has_rabbitmq || die "rabbitmq-server was installed but is not where it should be"
}

# The engine's growth is counted in instructions.
install_valgrind() {
    has valgrind && return 0
    has apt-get || die "please install valgrind"
    say "installing valgrind"
    apt_install valgrind || die "could not install valgrind"
}

# Installs what is missing of Chromium, Prometheus, and the Java and Go of stock clients.
install_extra() {
    packages=
    has chromium || has chromium-browser || has google-chrome || packages="chromium"
    has promtool || packages="$packages prometheus"
    has javac || packages="$packages default-jdk-headless"
    [ -e /usr/share/java/amqp-client.jar ] || packages="$packages librabbitmq-client-java"
    has go || packages="$packages golang-go"
    [ -d /usr/share/gocode/src/github.com/rabbitmq/amqp091-go ] ||
        packages="$packages golang-github-rabbitmq-amqp091-go-dev"
    [ -n "$packages" ] || return 0
    has apt-get || die "please install $packages"
    say "installing $packages"
    # shellcheck disable=SC2086 # a list of words
    apt_install $packages || die "could not install $packages"
}

# Whether version $1 is at least version $2 (numbers with dots).
at_least() {
    printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n -C
}

# Finds cargo and sees that it is new enough.
need_cargo() {
    if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
        export PATH
    fi
    has cargo || die "needs Rust (cargo): install it with rustup"
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")
    found=$(cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    at_least "$found" "$wanted" || die "needs Rust $wanted or later, found $found: rustup update"
}
