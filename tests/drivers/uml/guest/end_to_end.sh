# In the guest, with a library attached: backups to /dev/nst0 by the product, restored by it, and read by programs that
# others wrote.

export TAPEFS_HOME=/tmp/state
tapefs=$PROJECT/.venv/bin/tapefs
tape=/dev/nst0

# files FOLDER: all kinds that a file system has.
files() {
    mkdir -p "$1/deep/er"
    head -c 700000 /dev/urandom >"$1/random"
    seq 100000 >"$1/text"
    printf hello >"$1/deep/er/small"
    : >"$1/empty"
    ln "$1/text" "$1/deep/hard"
    ln -s ../text "$1/deep/symbolic"
    mkfifo -m 600 "$1/fifo"
    mknod "$1/null" c 1 3
    truncate -s 3M "$1/holes"
    # Memory takes no user attributes, but those of the system.
    setcap cap_net_raw+ep "$1/random"
    setfacl -m u:daemon:r "$1/random"
    chown 12:34 "$1/text"
    chmod 4751 "$1/empty"
    touch -d '2001-02-03 04:05:06.789 UTC' "$1/deep/er/small" "$1/deep/er"
}

# same ONE OTHER: rsync finds no difference in content, kind, owner, mode, time, links, attributes or ACLs.
same() {
    local differences
    differences=$(rsync -nicaHAX --devices --specials --delete "$1/" "$2/")
    [[ -z $differences ]] || { printf 'guest: %s and %s differ:\n%s\n' "$1" "$2" "$differences" >&2; return 1; }
}

# commands HEADER: the lines that it gives for restoring.
commands() { sed -n '/To restore all/,/^To list/p' "$1" | grep '^  '; }

"$tapefs" init --driver st --changer /dev/sch0 --drive "$tape" >/dev/null

# let_go: end the sidecar that a command left behind for the next one, so that the drive is free.
let_go() {
    pkill -TERM -f 'serve --until-idle' || true
    tries mt -f "$tape" status
}

files /tmp/source

echo "== a mover that is killed in the middle of a segment: st closes the tape, with a filemark behind it"
if TAPEFS_CRASH_AT=segment.trailer.after "$tapefs" backup /tmp/source; then exit 1; fi
let_go
mt -f "$tape" tell

echo "== by the product: a backup over what the other one left, another behind it, and back"
"$tapefs" backup /tmp/source
cp -a /tmp/source /tmp/first
rm /tmp/source/text
files /tmp/source/more
set=$("$tapefs" backup /tmp/source)
"$tapefs" restore "$set" --to /tmp/restored
same /tmp/source /tmp/restored/tmp/source
let_go

echo "== the first by mt, dd, zstd and tar, as the tape says"
mtx -f /dev/sch0 status | grep 'Data Transfer Element 0:Full'
mt -f "$tape" setblk 0
mt -f "$tape" rewind
dd if="$tape" bs=1M status=none >/tmp/label
grep 'This tape holds backups written by tapefs' /tmp/label
mt -f "$tape" rewind
mt -f "$tape" fsf 2
dd if="$tape" bs=1M status=none >/tmp/header
commands /tmp/header
mkdir /tmp/by-hand
(cd /tmp/by-hand && bash -euo pipefail -c "$(commands /tmp/header)")
same /tmp/first /tmp/by-hand/tmp/source

echo "== both lie on one tape: two labels, two segments of three files, two indexes, and not a filemark more"
# st counts files on its way forward; the number it tells after `eod` is made up from what the drive left undone.
mt -f "$tape" rewind
mt -f "$tape" fsf 10
end=$(mt -f "$tape" tell)
mt -f "$tape" eod
[[ $(mt -f "$tape" tell) == "$end" ]] || { echo "guest: ten files end at $end, all data elsewhere" >&2; exit 1; }
