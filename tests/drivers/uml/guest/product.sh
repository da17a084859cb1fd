# In the guest: the product, what it backs up, and how others compare it. For jobs that have a disk and a library.

export TAPEFS_HOME=/disk/state
tape=/dev/nst0

# tapefs ARGUMENTS...: the command in a process that is forked from one that has begun: see commands.py. What an own
# interpreter makes of it, `end_to_end.sh` sees with tapefs=$PROJECT/.venv/bin/tapefs.
tapefs=tapefs
tapefs() { forked tapefs "$@"; }

# forked PROGRAM ARGUMENTS...: one of those that commands.py knows.
forked() {
    local request=/run/commands/$BASHPID-$((requests++)) name environment=() status
    for name in "${!TAPEFS_@}"; do environment+=("$name=${!name}"); done
    printf '%s\0' "$PWD" "${environment[@]}" -- "$@" >"$request"
    mkfifo "$request.ended"
    echo "$BASHPID $request" >/run/commands/requests
    read -r status <"$request.ended"
    return "$status"
}

requests=1
mkdir /run/commands
mkfifo /run/commands/requests
(cd "$PROJECT" && exec .venv/bin/python -m tests.drivers.uml.guest.commands /run/commands/requests) &

# stage WHAT: a line for the log, with the seconds since the boot.
stage() { echo "== $(cut -d' ' -f1 /proc/uptime) s: $*"; }

# files FOLDER: all kinds that a file system has, and all that it keeps of them.
files() {
    mkdir -p "$1/deep/er"
    head -c 700000 /dev/urandom >"$1/random"
    seq 100000 >"$1/text"
    printf hello >"$1/deep/er/small"
    printf 'not UTF-8' >"$1/caf"$'\xe9\n'"and a line"
    : >"$1/empty"
    ln "$1/text" "$1/deep/hard"
    ln -s ../text "$1/deep/symbolic"
    mkfifo -m 600 "$1/fifo"
    mknod "$1/null" c 1 3
    truncate -s 3M "$1/holes"
    seq 1000 | dd of="$1/holes" bs=4k seek=300 conv=notrunc status=none
    setfattr -n user.colour -v 0x00ff0a "$1/text"
    setcap cap_net_raw+ep "$1/random"
    setfacl -m u:daemon:r,g:games:rw "$1/random"
    setfacl -d -m u:daemon:rx "$1/deep"
    chown 12:34 "$1/text"
    chown -h 56:78 "$1/deep/symbolic"
    chmod 4751 "$1/empty"
    touch -h -d '1999-12-31 23:59:59.987654321 UTC' "$1/deep/symbolic"
    touch -d '2001-02-03 04:05:06.789012345 UTC' "$1/deep/er/small" "$1/deep/er"
}

# noise FOLDER COUNT: so many files of 2 MB that cannot be compressed.
noise() { mkdir -p "$1"; for number in $(seq "$2"); do head -c 2000000 /dev/urandom >"$1/noise-$number"; done; }

# same ONE OTHER: rsync finds no difference in content, kind, owner, mode, time to the nanosecond, links, attributes or
# ACLs.
same() {
    local differences
    differences=$(rsync -nicaHAX --modify-window=-1 --devices --specials --delete "$1/" "$2/")
    [[ -z $differences ]] || { printf 'guest: %s and %s differ:\n%s\n' "$1" "$2" "$differences" >&2; return 1; }
}

# same_holes ONE OTHER: files have data at the same places.
same_holes() {
    python3 -IS - "$1" "$2" <<'END'
import os, sys
def holes(root):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.isfile(path) or os.path.islink(path):
                continue
            with open(path, "rb") as file:
                place, end = 0, os.stat(path).st_size
                while place < end:
                    try:
                        data = os.lseek(file.fileno(), place, os.SEEK_DATA)
                    except OSError:
                        break
                    place = os.lseek(file.fileno(), data, os.SEEK_HOLE)
                    yield os.path.relpath(path, root), data, place
one, other = (set(holes(os.fsencode(each))) for each in sys.argv[1:])
assert one
for each in sorted(one ^ other):
    print("guest: only in the", "first:" if each in one else "second:", *each, file=sys.stderr)
sys.exit(one != other)
END
}

# let_go: end the sidecar that a command left behind for the next one, so that the drive is free.
let_go() {
    pkill -TERM -f 'serve --until-idle' || true
    tries mt -f "$tape" status
}

# serve [--mount FOLDER]: a sidecar that stays, until `serve_no_more`.
serve() {
    # One that is there was somebody's who has gone: a command would believe it, and start a sidecar of its own.
    rm -f "$TAPEFS_HOME"/sidecar.sock
    "$PROJECT"/.venv/bin/tapefs serve --listen 127.0.0.1:0 "$@" >>"$SHARE"/serve.log 2>&1 &
    sidecar=$!
    until [[ -S $TAPEFS_HOME/sidecar.sock ]]; do
        kill -0 "$sidecar" || { cat "$SHARE"/serve.log >&2; return 1; }
        sleep 0.05
    done
    [[ ${1-} != --mount ]] || tries test -d "$2"/jobs
}

serve_no_more() {
    kill -TERM "$sidecar"
    wait "$sidecar"
}

# field NAME: of each object of a JSON list on standard input; a.b is b in a.
field() { forked field "$1"; }

# field_of NAME: of the JSON object on standard input.
field_of() { field "$1" < <(echo '['; cat; echo ']'); }

# node_of LUN COLUMN: of lsscsi's line about a unit of the target, its last column (2: sg) or the one before (1).
node_of() { lsscsi -g | awk -v lun=":$1]" -v column="$2" 'index($1, lun) { print $(NF - 2 + column) }'; }

# serial_of NODE: as the drive tells it to sg_inq.
serial_of() { sg_inq -p 0x80 "$1" | sed -n 's/.*[Ss]erial number: *\([^ ]*\).*/\1/p'; }

# job_ended JOB: in whatever way, as the log of `serve` has it. Asking takes two seconds, in which the job waits.
# A run that is queued again, for another drive or another try, is no end.
job_ended() {
    grep -qE "\"job\":$1,.*\"state\":\"(completed|failed|cancelled)\",.*\"event\":\"run ended\"" "$SHARE"/serve.log
}

# finished JOB: it has come to a good end.
finished() { [[ $("$tapefs" job show "$1" --json | field_of state) == completed ]]; }

# setting NAME VALUE: of the section [backup].
setting() { sed -i "s/^# $1 = [^ ]*/$1 = $2/" "$TAPEFS_HOME"/tapefs.toml; }

# -- by hand ---------------------------------------------------------------------------------------------------------

# commands: the lines that a text of the tape has for people to type, from standard input.
commands() { grep -a '^  \(mt\|dd\|7z\) '; }

# forward_to N: to the beginning of tape file N.
forward_to() {
    mt -f "$tape" rewind
    mt -f "$tape" fsf "$1"
}

# read_file N: print tape file N.
read_file() {
    forward_to "$1"
    dd if="$tape" bs=1M status=none
}

# headers: each tape file that is a HEADER, found by looking at each: its number and the set that it belongs to.
headers() {
    # A process takes 25 ms to start here: no more than two for each file.
    local number=2 line
    forward_to $number 2>/dev/null || return 0
    while dd if="$tape" of=/tmp/block bs=1M count=1 status=none 2>/dev/null && [[ -s /tmp/block ]]; do
        read -rN 13 line </tmp/block 2>/dev/null || line=
        if [[ $line == 'TAPEFS HEADER' ]]; then
            while read -r line; do
                [[ $line == '{"format"'*'"set":"'* ]] || continue
                line=${line#*\"set\":\"}
                echo "$number" "${line%%\"*}"
                break
            done </tmp/block
        fi
        mt -f "$tape" fsf 1 2>/dev/null || break
        number=$((number + 1))
    done
}

# by_hand SET FOLDER: type what the HEADERs of a set say, for each of its segments on the tape that is in the drive.
by_hand() {
    local number set
    mkdir -p "$2"
    # All at first: both use the drive.
    headers >/tmp/headers
    while read -r number set; do
        [[ $set == "$1" ]] || continue
        read_file "$number" >/tmp/header
        # The last of its commands lists the TRAILER; it is typed by hand when somebody wants that.
        (cd "$2" && bash -euo pipefail -c "$(commands </tmp/header | head -n -1)" 2>>"$SHARE"/dd.log)
        echo "segment of $1 in tape file $number"
    done </tmp/headers
}

# join_parts FILE: put it together again, as the HEADER says.
join_parts() {
    local parts=("$1".tapefs-part-*)
    ((${#parts[@]} > 1))
    cat "${parts[@]}" >"$1"
    chmod --reference="${parts[0]}" "$1"
    chown --reference="${parts[0]}" "$1"
    touch --reference="${parts[0]}" "$1"
    rm "${parts[@]}"
}
