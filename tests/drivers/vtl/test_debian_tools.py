"""`tapefs vtl` with mutual CHAP, as a Linux kernel and Debian's tape programs see it: mtx, mt, tar, dd, sg3-utils."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.drivers.uml.machine import run, why_not

MISSING = why_not("iscsistart", "mt", "mtx", "lsscsi", "sg_logs")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

JOB = """
load_tape_modules
home=/tmp/home
"$PROJECT"/.venv/bin/tapefs --home $home init --tapes 3 --tape-size 32MiB --drives 2 >/dev/null
"$PROJECT"/.venv/bin/tapefs --home $home library ports 2
umask 077
echo 'a secret of joe' >/tmp/joe
echo 'a secret of vtl' >/tmp/own
"$PROJECT"/.venv/bin/tapefs --home $home vtl --target "$IQN" --chap-user joe --chap-password-file /tmp/joe \\
    --own-user vtl --own-password-file /tmp/own >/tmp/vtl.log 2>&1 &
vtl=$!
tries grep -q iscsi-ls /tmp/vtl.log || tries grep -q iscsi-ls /tmp/vtl.log
if iscsistart -i iqn.2026-11.test:guest -t "$IQN" -g 1 -a 127.0.0.1 -p $PORT >/dev/null 2>&1; then
    echo 'let in without a password'
fi
iscsistart -i iqn.2026-11.test:guest -t "$IQN" -g 1 -a 127.0.0.1 -p $PORT \\
    -u joe -w 'a secret of joe' -U vtl -W 'a secret of vtl' >/dev/null 2>&1
tries test -c /dev/nst1
tries sh -c 'lsscsi -g | grep -q "mediumx.*/dev/sg"'
tries sh -c 'lsscsi -g | grep -q "/dev/st0.*/dev/sg"'
changer=$(lsscsi -g | awk '/mediumx/ {print $NF}')
sg=$(lsscsi -g | awk '/dev.st0/ {print $NF}')
export TAPE=/dev/nst0

echo "== changer"
mtx -f $changer load 2 0
mtx -f $changer status

echo "== positions"
mkdir /tmp/src
for name in 1 2 3; do
    head -c 300000 /dev/urandom >/tmp/src/$name
    tar -C /tmp/src -b 128 -cf $TAPE $name
done
mt tell
mt rewind; mt fsf 1; mt tell; tar -b 128 -tf $TAPE
mt bsfm 1; mt tell
mt eod; mt tell
mt bsf 2; mt fsf 1; tar -b 128 -xOf $TAPE 3 | cmp - /tmp/src/3
mt seek 5; mt tell; mt bsr 2; mt tell; mt fsr 1; mt tell
mt status | tail -1

echo "== fixed"
mt rewind; mt setblk 512; mt weof 1
dd if=/tmp/src/1 of=$TAPE bs=64k conv=sync status=none
mt rewind; mt fsf 1
dd if=$TAPE bs=64k status=none | head -c 300000 | cmp - /tmp/src/1
mt setblk 0
mt compression 0
sg_modes -p 0xf $sg | tail -1

echo "== logs"
sg_logs -p 0x17 $sg | grep -i -e barcode -e 'thread count'
sg_logs -p 0x31 $sg | grep 'maximum.*: 32'
sg_read_attr $sg | grep -e '^  Barcode' -e '^  Load count'
sg_inq -p 0xb1 $sg | grep -c Manufacturer
sg_opcodes $sg | grep -c 'Read position'

echo "== end"
mt rewind
dd if=/dev/zero of=$TAPE bs=1M 2>&1 | head -2 || true
mt offline
mtx -f $changer unload 2 0
mtx -f $changer exchange 1 2
mtx -f $changer load 1 1
mtx -f $changer status

echo "== ports"
mtx -f $changer transfer 2 5
mtx -f $changer transfer 3 4
mtx -f $changer status | grep -v Transfer
mtx -f $changer transfer 5 2
mtx -f $changer status | grep EXPORT
kill $vtl
wait $vtl
"""

EXPECTED = """\
== changer
Loading media from Storage Element 2 into drive 0...done
Storage Changer /dev/sgN:2 Drives, 5 Slots ( 2 Import/Export )
Data Transfer Element 0:Full (Storage Element 2 Loaded):VolumeTag = TP0002L9
Data Transfer Element 1:Empty
Storage Element 1:Full :VolumeTag=TP0001L9
Storage Element 2:Empty
Storage Element 3:Full :VolumeTag=TP0003L9
Storage Element 4 IMPORT/EXPORT:Empty
Storage Element 5 IMPORT/EXPORT:Empty
== positions
At block 18.
At block 6.
2
At block 6.
At block 18.
At block 5.
At block 3.
At block 4.
ONLINE IM_REP_EN
== fixed
00     0f 0e 40 80 00 00 00 01  00 00 00 01 00 00 00 00
== logs
Thread count: 1
Volume barcode: TP0002L9
Main partition maximum capacity (in MiB): 32
Load count: 1
Barcode: TP0002L9
1
4
== end
dd: error writing '/dev/nst0': No space left on device
25+0 records in
Unloading drive 0 into Storage Element 2...done
Loading media from Storage Element 1 into drive 1...done
Storage Changer /dev/sgN:2 Drives, 5 Slots ( 2 Import/Export )
Data Transfer Element 0:Empty
Data Transfer Element 1:Full (Storage Element 1 Loaded):VolumeTag = TP0002L9
Storage Element 1:Empty
Storage Element 2:Full :VolumeTag=TP0001L9
Storage Element 3:Full :VolumeTag=TP0003L9
Storage Element 4 IMPORT/EXPORT:Empty
Storage Element 5 IMPORT/EXPORT:Empty
== ports
Storage Changer /dev/sgN:2 Drives, 5 Slots ( 2 Import/Export )
Storage Element 1:Empty
Storage Element 2:Empty
Storage Element 3:Empty
Storage Element 4 IMPORT/EXPORT:Full :VolumeTag=TP0003L9
Storage Element 5 IMPORT/EXPORT:Full :VolumeTag=TP0001L9
Storage Element 4 IMPORT/EXPORT:Full :VolumeTag=TP0003L9
Storage Element 5 IMPORT/EXPORT:Empty
"""


def test_typed_commands(tmp_path: Path) -> None:
    ended = run(JOB, tmp_path, timeout_s=180)
    print(ended.output)
    assert ended.status == 0, ended.output
    said = re.sub(r"/dev/sg[0-9]+:", "/dev/sgN:", ended.output)
    assert "".join(f"{line.strip()}\n" for line in said.splitlines()) == EXPECTED
