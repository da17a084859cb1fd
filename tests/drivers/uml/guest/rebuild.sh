# In the guest, with a disk and a library attached: the catalog is deleted, and comes back from /dev/nst0 by each of the
# three ways; then from an old copy and the tape; then the files by untape.py alone.

"$tapefs" init --driver st --changer /dev/sch0 --drive "$tape" >/dev/null
mkdir /disk/source /disk/was

stage "a full set, a copy of the catalog, an incremental set with a deletion"
files /disk/source
serve
first=$("$tapefs" backup --type incremental --name nightly /disk/source)
"$tapefs" catalog backup /disk/old-copy
rm /disk/source/empty
files /disk/source/more
second=$("$tapefs" backup --type incremental --name nightly /disk/source)
serve_no_more
mv "$TAPEFS_HOME"/{ledger,index,trailers} /disk/was
name=TP0001L9

# kept FOLDER: put the catalog aside.
kept() {
    mkdir "$1"
    mv "$TAPEFS_HOME"/{ledger,index,trailers} "$1"
}

for way in index trailers payloads; do
    stage "by --from $way"
    "$tapefs" rebuild --from "$way" "$name"
    kept "/disk/$way"
done

stage "an old copy of the catalog, and the tape, which knows more"
"$tapefs" catalog restore /disk/old-copy
"$tapefs" import "$name"

stage "each is as it was"
cp -a "$TAPEFS_HOME" /disk/imported
(cd "$PROJECT" && .venv/bin/python -m tests.drivers.uml.guest.compare_catalogs "$first" "$second")

stage "the next backup builds on the newest set, behind it on the same tape; all of it comes back by untape.py alone"
echo third >/disk/source/third
third=$("$tapefs" backup --name nightly --type incremental /disk/source)
let_go
[[ $("$tapefs" show "$third" --json | field_of parent) == "$second" ]]
/usr/bin/python3 -I "$PROJECT"/scripts/untape.py restore "$third" "$tape" --special --to /disk/untaped
same /disk/source /disk/untaped/disk/source
