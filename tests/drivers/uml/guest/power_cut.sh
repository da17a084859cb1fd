# In the guest, with a disk and a library whose drives are slow: a set that is whole, and one in the middle of whose second
# or later segment the host cuts the power.

"$tapefs" init --driver st --changer /dev/sch0 --drive "$tape" >/dev/null
setting segment_bytes 4194304
mkdir /disk/whole /disk/cut
files /disk/whole
noise /disk/cut 8
stage "a set that is whole"
"$tapefs" backup /disk/whole >/disk/whole.set
sync -f /disk/whole.set
before=$(cd "$LIBRARY"/cartridges/TP0001L9 && find . -name '0*' -printf '%f\n' | sort | tail -n 1)
"$tapefs" backup /disk/cut --no-wait >/disk/cut.job
sync -f /disk/cut.job
# What runs goes on. Behind the power cut it would at once, before anybody can look at what there is then.
"$tapefs" jobs pause --reason 'somebody looks'

# in_a_payload: the newest tape file is a payload of the second set behind its first segment.
in_a_payload() {
    local newest
    newest=$(cd "$LIBRARY"/cartridges/TP0001L9 && find . -name '0*' -size +1024k -printf '%f\n' | sort | tail -n 1)
    ((10#$newest > 10#$1))
}

stage "another, until its second segment has reached the medium in part"
tries in_a_payload $((10#$before + 4))
# No filemark, but what the drive has in its buffer.
sg_raw "$(node_of 1 2)" 10 00 00 00 00 00 2>>"$SHARE"/sg.log
echo cut me off >"$SHARE"/cut
sleep 1000
