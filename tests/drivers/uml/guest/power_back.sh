# In the guest, after power_cut.sh.

whole=$(tail -n 1 /disk/whole.set) job=$(cat /disk/cut.job)
stage "by hand: what the power cut left is a HEADER and a part of its payload, no TRAILER"
mt -f "$tape" load
mt -f "$tape" setblk 0
read -r torn cut < <(headers | tail -n 1)
[[ $cut != "$whole" ]]
# Where no filemark follows, dd ends with an error, behind all that is there.
bytes=$({ read_file $((torn + 1)) 2>/dev/null || true; } | wc -c)
echo "the HEADER in tape file $torn is of set $cut; $bytes bytes of its payload"
((bytes > 0 && bytes < 4194304))
if forward_to $((torn + 2)) 2>/dev/null; then exit 1; fi

# states STATE...: those of all sets, the oldest first.
states() { [[ $("$tapefs" sets --json | field state | paste -sd' ') == "$1" ]]; }

stage "the torn set is not shown; its job goes on behind its last whole segment and writes over the torn one"
mkdir /disk/mnt
serve --mount /disk/mnt
tries states 'complete failed'
"$tapefs" sets
[[ $(ls /disk/mnt/jobs) == whole ]]
"$tapefs" jobs resume
tries job_ended "$job"
finished "$job"
states 'complete complete'
files /disk/whole/more
appended=$("$tapefs" backup /disk/whole)

stage "everything is there"
"$tapefs" verify --all
"$tapefs" evict --all
same /disk/cut /disk/mnt/jobs/cut/latest/disk/cut
same /disk/whole /disk/mnt/jobs/whole/latest/disk/whole
rm -r /disk/whole/more
touch --reference="/disk/mnt/sets/$whole/disk/whole" /disk/whole
same /disk/whole "/disk/mnt/sets/$whole/disk/whole"
serve_no_more

stage "and by hand, where the torn segment was"
tries mt -f "$tape" status
by_hand "$cut" /disk/by-hand | tee /tmp/restored
grep -x "segment of $cut in tape file $torn" /tmp/restored
same /disk/cut /disk/by-hand/disk/cut
stage end
