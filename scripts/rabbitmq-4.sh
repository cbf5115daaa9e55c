# A RabbitMQ 4.x server beside the system's; sourced after lib.sh, not run. POSIX sh.
#
# Debian 13's packages are unpacked into a folder and run from there as they are: with their own
# loader and libraries, since those of an older system lack what they were linked with. Nothing is
# installed, so this needs apt-get, the network once, and no root. 120 MB. Another release's:
# TANDEM_RABBITMQ_4_SUITE=forky, in a folder of its own.

# Debian's release that it is taken from: trixie (13) has 4.0, forky a later one.
case ${TANDEM_RABBITMQ_4_SUITE:=trixie} in
*[!a-z-]*) die "TANDEM_RABBITMQ_4_SUITE must be the name of a release of Debian, not $TANDEM_RABBITMQ_4_SUITE" ;;
esac
rabbitmq_4=${XDG_CACHE_HOME:-$HOME/.cache}/tandem/rabbitmq-4
[ "$TANDEM_RABBITMQ_4_SUITE" = trixie ] || rabbitmq_4=$rabbitmq_4-$TANDEM_RABBITMQ_4_SUITE
# Where it is put. Delete the folder to have it fetched anew.
rabbitmq_4=${TANDEM_RABBITMQ_4:-$rabbitmq_4}
# What `die` gives where this machine cannot have it, through no fault of the project.
cannot=75

# Prints the system's own server where that is a 4.x: then no second one is needed.
system_rabbitmq_4() {
    [ "$TANDEM_RABBITMQ_4_SUITE" = trixie ] || return 1
    for file in /usr/lib/rabbitmq/lib/rabbitmq_server-4.*/sbin/rabbitmq-server; do
        [ -x "$file" ] && printf '%s\n' "$file" && return 0
    done
    return 1
}

# Prints the server's path; `put_rabbitmq_4` must have been there before.
rabbitmq_4_server() {
    system_rabbitmq_4 || printf '%s\n' "$rabbitmq_4/bin/rabbitmq-server"
}

# Puts it there, where it is not.
put_rabbitmq_4() {
    if server=$(system_rabbitmq_4); then
        say "the system's RabbitMQ is a 4.x: $server"
        return 0
    fi
    case $rabbitmq_4 in
    /*[!A-Za-z0-9._/+-]* | [!/]*)
        die "TANDEM_RABBITMQ_4 must be an absolute path of letters, digits and . _ + -, not $rabbitmq_4" ;;
    esac
    [ -x "$rabbitmq_4/bin/rabbitmq-server" ] && return 0
    for tool in apt-get dpkg-deb; do
        has "$tool" || cannot_have "needs $tool (Debian, Ubuntu)"
    done
    mkdir -p "$rabbitmq_4" || die "cannot make $rabbitmq_4"
    # What a run that was broken off left behind is of no use; what another run has is not ours.
    work=$(mktemp -d "$rabbitmq_4/new.XXXXXX") || die "cannot write to $rabbitmq_4"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    fetch_packages "$work"
    unpack_packages "$work"
    # The folder is in the scripts, so it is theirs for good; and it is whole from the moment it
    # has its name.
    tree=$rabbitmq_4/$(basename "$work" | sed 's/^new/tree/')
    adapt_programs "$work/tree" "$tree"
    mkdir "$work/bin"
    for name in rabbitmq-server rabbitmqctl rabbitmq-diagnostics epmd; do
        write_wrapper "$work/tree" "$tree" "$name" >"$work/bin/$name"
        chmod 755 "$work/bin/$name"
    done
    mv "$work/tree" "$tree"
    # Another run may have been quicker.
    mv -T "$work/bin" "$rabbitmq_4/bin" 2>/dev/null || rm -rf "$tree"
    rm -rf "$work"
    trap - EXIT INT TERM
    [ -x "$rabbitmq_4/bin/rabbitmq-server" ] || die "could not put RabbitMQ 4 into $rabbitmq_4"
    say "RabbitMQ $(basename "$(echo "$rabbitmq_4"/tree.*/usr/lib/rabbitmq/lib/rabbitmq_server-*)" |
        sed 's/.*-//') is in $rabbitmq_4"
}

cannot_have() {
    say "RabbitMQ 4 cannot be had: $*"
    exit "$cannot"
}

# Where this machine's apt gets Debian from.
debian_mirror() {
    if [ -n "${TANDEM_DEBIAN_MIRROR:-}" ]; then
        printf '%s\n' "$TANDEM_DEBIAN_MIRROR"
        return 0
    fi
    # shellcheck disable=SC2016 # apt's own names
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep '/debian/*$' | head -n 1
}

# apt with lists, packages and a state of its own in folder $1; proxies and the like are the system's.
own_apt() {
    folder=$1
    shift
    LC_ALL=C apt-get -qq -y \
        -o Dir::State="$folder/state" -o Dir::State::status="$folder/state/status" \
        -o Dir::Cache="$folder/cache" -o Dir::Etc::sourcelist="$folder/debian.list" \
        -o Dir::Etc::sourceparts=- -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts="$folder/none" \
        -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false \
        -o Acquire::Languages=none -o Acquire::Retries=2 -o Acquire::http::Timeout=20 "$@" >&2
}

# Loads the packages into folder $1.
fetch_packages() {
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || cannot_have "apt knows no mirror of Debian; set TANDEM_DEBIAN_MIRROR to one's URL"
    mkdir -p "$1/none" "$1/state/lists/partial" "$1/cache/archives/partial"
    : >"$1/state/status"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    by=
    [ ! -r "$keys" ] || by="[signed-by=$keys] "
    printf 'deb %s%s %s main\n' "$by" "$mirror" "$TANDEM_RABBITMQ_4_SUITE" >"$1/debian.list"
    say "fetching RabbitMQ 4 from Debian's $TANDEM_RABBITMQ_4_SUITE, 60 MB"
    own_apt "$1" -o APT::Update::Error-Mode=any update || cannot_have "no list of packages from $mirror (see above)"
    own_apt "$1" --download-only install rabbitmq-server || cannot_have "no packages from $mirror (see above)"
}

# Unpacks what runs: the server, Erlang and libraries.
unpack_packages() {
    for file in "$1"/cache/archives/rabbitmq-server_*.deb "$1"/cache/archives/erlang-*.deb \
        "$1"/cache/archives/lib*.deb "$1"/cache/archives/zlib1g_*.deb; do
        case $file in */libpython*) continue ;; esac
        dpkg-deb -x "$file" "$1/tree" || die "cannot unpack $file"
    done
    rm -rf "$1/tree/usr/share" "$1/tree/etc" "$1/tree/var"
}

is_elf() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]; }

# Erlang in tree $1 runs with the loader and libraries beside it, and knows its folder, $2.
adapt_programs() {
    loader=$(cd "$1" && find usr/lib* -name 'ld-linux*.so.*' | head -n 1)
    libraries=$(cd "$1" && find usr/lib -name libc.so.6 | head -n 1)
    [ -n "$loader" ] && [ -n "$libraries" ] || die "Debian's packages are not as they were"
    for file in "$1"/usr/lib/erlang/erts-*/bin/* "$1"/usr/lib/erlang/lib/*/priv/bin/*; do
        [ -f "$file" ] && is_elf "$file" || continue
        mv "$file" "$file.real"
        cat >"$file" <<END
#!/bin/sh
exec '$2/$loader' --library-path '$2/${libraries%/*}' '$2${file#"$1"}.real' "\$@"
END
        chmod 755 "$file"
    done
    for file in "$1"/usr/lib/erlang/bin/erl "$1"/usr/lib/erlang/erts-*/bin/erl; do
        [ -f "$file" ] || continue
        sed "s|ROOTDIR=/usr/lib/erlang|ROOTDIR=$2/usr/lib/erlang|" "$file" >"$file.new"
        cat "$file.new" >"$file"
        rm "$file.new"
    done
}

# Prints the script that starts program $3 of tree $1, which will be called $2.
write_wrapper() {
    if [ "$3" = epmd ]; then
        program=$(cd "$1" && echo usr/lib/erlang/erts-*/bin/epmd)
    else
        program=$(cd "$1" && echo usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/"$3")
    fi
    [ -x "$1/$program" ] || die "Debian's packages are not as they were: no $program"
    cat <<END
#!/bin/sh
PATH='$2/usr/lib/erlang/bin':\$PATH
export PATH
exec '$2/$program' "\$@"
END
}
