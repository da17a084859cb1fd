# In the guest, with a disk and a library attached: the drive encrypts what the product writes, and stenc, mt, dd, zstd and
# tar read it with the key of the tape, by what the tape itself prints.

"$tapefs" init --driver st --changer /dev/sch0 --drive "$tape" >/dev/null
setting segment_bytes 3145728
passphrase=/disk/passphrase
echo 'correct horse' >"$passphrase"
chmod 600 "$passphrase"
# A passphrase takes 256 MiB otherwise, and every page of it is dear here: see tests/keys/quick.py.
(cd "$PROJECT"; for name in one two; do
    .venv/bin/python -m tests.keys.quick key create $name --passphrase-file "$passphrase"
done)
printf '\n[encryption]\nkey = "one"\nby = "drive"\n' >>"$TAPEFS_HOME"/tapefs.toml

mkdir /disk/source
files /disk/source

stage "locked: nothing is written, and it is said what to do"
serve
if "$tapefs" backup /disk/source 2>/tmp/told; then exit 1; fi
grep 'tapefs key unlock one.1' /tmp/told

stage "unlocked, and back"
"$tapefs" key unlock one --passphrase-file "$passphrase"
set=$("$tapefs" backup /disk/source)
"$tapefs" evict --all
"$tapefs" restore "$set" --to /disk/restored
same /disk/source /disk/restored/disk/source
serve_no_more

stage "labels and the HEADER are plain, what is behind them is not; no key was left in the drive"
mt -f "$tape" setblk 0
read_file 0 | grep -a 'This tape holds backups'
read_file 1 | grep -a 'encrypted by the drive (AES-256-GCM)'
read_file 2 >/tmp/header
if read_file 3 >/tmp/payload 2>/dev/null; then exit 1; fi
[[ ! -s /tmp/payload ]]

stage "another key than the tape's"
label=$(read_file 0 | sed -n 's/.*Its name is "\(.*\)"\..*/\1/p')
volume=$(tail -n 2 /tmp/header | head -n 1 | field_of volume)
"$tapefs" key export two --drive "$volume" --passphrase-file "$passphrase" >/tmp/wrong.key
stenc -f "$tape" -e mixed -k /tmp/wrong.key -a 1 --ckod
if read_file 3 >/tmp/payload 2>/dev/null; then exit 1; fi

stage "the key of the tape, as tapefs, untape.py and the HEADER's own lines make it"
"$tapefs" key export --drive "$label" --passphrase-file "$passphrase" >/tmp/drive.key
"$tapefs" key export one --passphrase-file "$passphrase" >/tmp/key.txt
[[ $(/usr/bin/python3 -I "$PROJECT"/scripts/untape.py drive-key /tmp/key.txt "$volume") == $(head -n 1 /tmp/drive.key) ]]
stenc -f "$tape" -e mixed -k /tmp/drive.key -a 1 --ckod
by_hand "$set" /disk/by-hand
same /disk/source /disk/by-hand/disk/source
# `--detail` tells of the block before the head.
forward_to 3
stenc -f "$tape" --detail | grep -a "$(tail -n 1 /tmp/drive.key)"

stage "untape.py reads it like any tape"
/usr/bin/python3 -I "$PROJECT"/scripts/untape.py restore "$set" "$tape" --special --to /disk/untaped
same /disk/source /disk/untaped/disk/source

stage "with the key taken out it says what is needed, and the product still reads it"
stenc -f "$tape" -e off -a 1
/usr/bin/python3 -I "$PROJECT"/scripts/untape.py check "$tape" >/tmp/told 2>&1 && exit 1
grep -q 'the drive has encrypted this tape' /tmp/told
TAPEFS_PASSPHRASE_FILE=$passphrase "$tapefs" verify "$set"
let_go
stage "end"
