# In the guest, with a disk and a library attached: sets across two tapes, moved by mtx and by the product, and two drives.

changer=$(node_of 0 2)
[[ $(node_of 1 1) == /dev/st0 && $(node_of 2 1) == /dev/st1 ]]
first_serial=$(serial_of "$(node_of 1 2)") second_serial=$(serial_of "$(node_of 2 2)")
echo "changer $changer; drives $first_serial, $second_serial"

# tapes_of SET: the names of its tapes.
tapes_of() { "$tapefs" show "$1" --json | python3 -IS -c 'import json, sys; print(*json.load(sys.stdin)["tapes"])'; }

stage "by mtx: the second drive is the only one, and a set needs two tapes"
"$tapefs" init --driver st --drive /dev/nst1 --changer "mtx:$changer,1" >/dev/null
setting segment_bytes 4194304
mkdir /disk/source
files /disk/source
noise /disk/source/noise 14
spanning=$("$tapefs" backup /disk/source)
cp -a /disk/source /disk/first
tape=/dev/nst1 let_go
[[ $(tapes_of "$spanning") == 'TP0001L9 TP0002L9' ]]

stage "by hand: mtx brings one tape after the other into the first drive"
mt -f /dev/nst1 offline
mtx -f "$changer" unload 2 1
mkdir /disk/by-hand
for slot in 1 2; do
    mtx -f "$changer" load $slot 0
    # A drive that has just got its tape may refuse what is asked first; whoever sits there asks again.
    tries mt -f "$tape" setblk 0
    by_hand "$spanning" /disk/by-hand
    mt -f "$tape" offline
    mtx -f "$changer" unload $slot 0
done
same /disk/first /disk/by-hand/disk/source
same_holes /disk/first /disk/by-hand/disk/source

stage "by the changer itself and two drives, named by serial numbers in another order than the changer's"
sed -i "s|^ *\"/dev/nst1\",|\"$second_serial\", \"$first_serial\"|; s|^changer = .*|changer = \"/dev/sch0\"|" \
    "$TAPEFS_HOME"/tapefs.toml
serve
"$tapefs" restore "$spanning" --to /disk/restored
same /disk/first /disk/restored/disk/source
same_holes /disk/first /disk/restored/disk/source
"$tapefs" drives
# Both read, and what the product calls drive0 is the changer's second.
"$tapefs" drives --json | field counters.bytes_read | while read -r bytes; do ((bytes > 3000000)); done
in_drive0=$("$tapefs" drives --json | field tape | head -n 1)
mtx -f "$changer" status | grep "Data Transfer Element 1:Full .*VolumeTag = $in_drive0"

stage "the next set begins behind the first one and ends on a third tape; both drives are empty before"
# A drive that has nothing to do would begin a blank tape rather than wait for one that is in the other drive.
serve_no_more
mt -f /dev/nst0 offline
mt -f /dev/nst1 offline
mtx -f "$changer" unload 1 0
mtx -f "$changer" unload 2 1
mkdir /disk/mnt
serve --mount /disk/mnt
rm -r /disk/source/noise
noise /disk/source/other 9
appended=$("$tapefs" backup /disk/source)
[[ $(tapes_of "$appended") == 'TP0002L9 TP0003L9' ]]

stage "two backups on two drives at once; when the first is done its drive serves a recall, while the other one writes"
# Eight seconds and 48 of the tape's own time: on a slow machine, too, there is a while between their ends.
noise /disk/quick 1
noise /disk/slow 6
"$tapefs" evict --all
"$tapefs" backup /disk/quick --no-wait
slow=$("$tapefs" backup /disk/slow --no-wait)
same /disk/first/deep "/disk/mnt/sets/$spanning/disk/source/deep"
"$tapefs" jobs
[[ $("$tapefs" job show "$slow" --json | field_of state) == running ]]
tries job_ended "$slow"
finished "$slow"
"$tapefs" tapes

stage "all of it by the mount"
same /disk/first "/disk/mnt/sets/$spanning/disk/source"
same /disk/source "/disk/mnt/sets/$appended/disk/source"
same /disk/quick /disk/mnt/jobs/quick/latest/disk/quick
same /disk/slow /disk/mnt/jobs/slow/latest/disk/slow
serve_no_more
stage end
