# In the guest, with a disk and a library attached: backups to /dev/nst0 by the product, restored by it, mounted, and
# read by programs that others wrote.

# As people start it, up to the first restore.
tapefs=$PROJECT/.venv/bin/tapefs
"$tapefs" init --driver st --changer /dev/sch0 --drive "$tape" >/dev/null
# So that the set has several, and a file is larger than one.
setting segment_bytes 3145728

mkdir /disk/source /disk/mnt
files /disk/source
head -c 4000000 /dev/urandom >/disk/source/large
chmod 640 /disk/source/large

stage "a mover that is killed in the second and in the third segment: st closes the tape, with a filemark behind each"
# Each mover dies in its second segment; the run goes on with the next one, behind the last whole segment.
first=$(TAPEFS_CRASH_AT=segment.trailer.after:2 "$tapefs" backup /disk/source)
let_go
[[ $(grep -c 'mover.*ended' "$TAPEFS_HOME"/sidecar.log) -ge 2 ]]

stage "another behind it, and back"
serve --mount /disk/mnt
cp -a /disk/source /disk/first
rm /disk/source/text
files /disk/source/more
second=$("$tapefs" backup /disk/source)
"$tapefs" restore "$second" --to /disk/restored
same /disk/source /disk/restored/disk/source
same_holes /disk/source /disk/restored/disk/source
tapefs=tapefs

stage "mounted: nothing is staged, so every file that is opened comes from the tape"
"$tapefs" evict --all
read_before=$("$tapefs" drives --json | field counters.bytes_read)
tries cmp /disk/mnt/sets/"$first"/disk/source/random /disk/first/random
same /disk/first "/disk/mnt/sets/$first/disk/source"
same /disk/source "/disk/mnt/jobs/source/latest/disk/source"
"$tapefs" drives
read_now=$("$tapefs" drives --json | field counters.bytes_read)
((read_now - read_before > 9000000))
segments=$("$tapefs" sets --json | field segments | paste -sd+)
serve_no_more
[[ ! -e /disk/mnt/sets ]]

stage "by mt, dd, zstd and tar: what the LABEL prints"
mtx -f /dev/sch0 status | grep 'Data Transfer Element 0:Full'
mt -f "$tape" setblk 0
read_file 0 >/tmp/label
grep 'This tape holds backups written by tapefs' /tmp/label
commands </tmp/label >/tmp/typed
[[ $(wc -l </tmp/typed) == 6 ]]
# To see tape file N; to list a TRAILER; to restore a PAYLOAD: each where the tape stands.
bash -euo pipefail -c "$(sed 's/fsf N/fsf 2/' /tmp/typed | head -n 4)" >/tmp/seen 2>>"$SHARE"/dd.log
head -n 1 /tmp/seen | grep -x 'TAPEFS HEADER 1\..*'
grep -aq "\"set\":\"$first\"" /tmp/seen
forward_to 4
bash -euo pipefail -c "$(sed -n 5p /tmp/typed)" 2>>"$SHARE"/dd.log | head -n 1
mkdir /disk/by-label
forward_to 3
(cd /disk/by-label && bash -euo pipefail -c "$(sed -n 6p /tmp/typed)" 2>>"$SHARE"/dd.log)

stage "the first by what its HEADERs print"
by_hand "$first" /disk/by-hand
# The LABEL's command restored what the first HEADER's does.
[[ -s /disk/by-label/disk/source/holes ]]
[[ -z $(rsync -nicaHAXO --modify-window=-1 /disk/by-label/ /disk/by-hand/) ]]
join_parts /disk/by-hand/disk/source/large
touch --reference=/disk/first /disk/by-hand/disk/source
same /disk/first /disk/by-hand/disk/source
same_holes /disk/first /disk/by-hand/disk/source

stage "both lie on one tape: two labels, segments of three files, two indexes, and not a filemark more"
# st counts files on its way forward; the number it tells after `eod` is made up from what the drive left undone.
forward_to $((2 + 3 * segments + 2))
end=$(mt -f "$tape" tell)
mt -f "$tape" eod
[[ $(mt -f "$tape" tell) == "$end" ]] || { echo "guest: the files end at $end, all data elsewhere" >&2; exit 1; }

stage "by untape.py alone, from the drive: everything, and one path; then all is read and compared with its sums"
untape() { /usr/bin/python3 -I "$PROJECT"/scripts/untape.py "$@"; }
untape list "$tape" | grep -c HEADER
untape restore "$second" "$tape" --special --to /disk/untaped
same /disk/source /disk/untaped/disk/source
same_holes /disk/source /disk/untaped/disk/source
untape restore "$first" "$tape" --to /disk/one-path /disk/source/random
cmp /disk/one-path/disk/source/random /disk/first/random
untape check "$tape"
