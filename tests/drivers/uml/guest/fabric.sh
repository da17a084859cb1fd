# In the guest, with a disk and a library whose first drive is slow: somebody resets the drive.

"$tapefs" init --driver st --changer /dev/sch0 --drive "$tape" >/dev/null
setting segment_bytes 4194304
mkdir /disk/source /disk/mnt
noise /disk/source 6
serve --mount /disk/mnt

# in_segment N: the newest tape file is behind the N-th segment's.
in_segment() {
    local newest
    newest=$(cd "$LIBRARY"/cartridges/TP0001L9 && find . -name '0*' -size +512k -printf '%f\n' | sort | tail -n 1)
    ((10#${newest:-0} > 2 + 3 * $1))
}

stage "a reset of the drive by somebody else, in the middle of the second segment"
reset=$("$tapefs" backup /disk/source --name reset --no-wait)
tries in_segment 1
sg_reset --device "$(node_of 1 2)"
tries job_ended "$reset"
"$tapefs" jobs
finished "$reset"

stage "everything is there"
"$tapefs" verify --all
"$tapefs" evict --all
same /disk/source /disk/mnt/jobs/reset/latest/disk/source
serve_no_more
stage end
