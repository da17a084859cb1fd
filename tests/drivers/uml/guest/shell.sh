# Functions for jobs in the guest. Each fails, and with it the job, when it cannot do what it is for.
set -eEuo pipefail
trap 'echo "guest: failed in line $LINENO: $BASH_COMMAND" >&2' ERR

IQN=iqn.2026-11.test:library
PORT=3260

# tries COMMAND...: until it succeeds, for minutes: others may use the machine.
tries() {
    local rest=2400
    until "$@" >/dev/null 2>&1; do
        ((rest-- > 0)) || { echo "guest: gave up waiting for: $*" >&2; return 1; }
        sleep 0.05
    done
}

# use_disk: what is on the disk of the machine is in /disk.
use_disk() {
    mkdir /disk
    mount -t ext4 -o nodiscard /dev/ubda /disk
}

load_tape_modules() {
    busybox modprobe -a st sg ch iscsi_tcp
}

# serve_library BYTES [TAPES]: this project's virtual library as a target, in $LIBRARY; see serve_library.py.
serve_library() {
    export LIBRARY=${LIBRARY:-/tmp/library}
    rm -f "$SHARE"/library.log
    PYTHONPATH=$PROJECT "$PROJECT"/.venv/bin/python "$PROJECT"/tests/drivers/uml/guest/serve_library.py \
        "$LIBRARY" "$PORT" "$@" >"$SHARE"/library.log 2>&1 &
    target=$!
    tries grep -q serving "$SHARE"/library.log
}

# start_tgt: tgt without any unit yet.
start_tgt() {
    export TGT_IPC_SOCKET=/run/tgt
    tgtd -f --iscsi "portal=127.0.0.1:$PORT" >"$SHARE"/tgtd.log 2>&1 &
    tries tgtadm --lld iscsi --op show --mode sys
    tgtadm --lld iscsi --op new --mode target --tid 1 -T "$IQN"
    tgtadm --lld iscsi --op bind --mode target --tid 1 -I ALL
}

# tgt_tape LUN IMAGE BARCODE MIB: a new cartridge in a drive.
tgt_tape() {
    tgtimg --op new --device-type tape --barcode "$3" --size "$4" --type data --file "$2" >/dev/null
    tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun "$1" -b "$2" --device-type tape
}

# attach: the target's units become devices of this kernel.
attach() {
    iscsistart -i iqn.2026-11.test:guest -t "$IQN" -g 1 -a 127.0.0.1 -p "$PORT" >"$SHARE"/iscsistart.log 2>&1
    tries test -c /dev/nst0
    tries sh -c 'ls /dev/sg*'
}
