"""The plain English on tape, for whoever finds it in twenty years with nothing but a Linux system. ASCII only."""

from __future__ import annotations

import json

from tapefs.codecs import Codec
from tapefs.format.records import AGE, DRIVE, DRIVE_KEY_INFO, Header, Label, SetLabel

#: `dd` must offer at least a block; larger does no harm, because it reads one block at a time.
_DD_BYTES = 1 << 20

_TAR = "tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf -"

#: What decrypts a tape file; the key is in key.txt.
AGE_COMMAND = "age -d -i key.txt"

#: In the HEADER of an encrypted segment.
_ENCRYPTED = """\
It is encrypted as the program age does it; key.txt has the key with the fingerprint
{fingerprint}, on one line: AGE-SECRET-KEY-1...
"""

#: In the HEADER of a segment that the drive has encrypted.
_BY_DRIVE = """\
The drive has encrypted its blocks (AES-256-GCM): a drive that encrypts has to be given the key of
this tape first, which is made of the key with the fingerprint {fingerprint}
and this tape's UUID, "volume" below. `tapefs key export --drive` prints it; else in two lines,
with the 64 hex digits of that key's secret bytes as $S and this tape's UUID as $V:
  openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:$S \\
    -kdfopt "info:{info}$V" HKDF | tr -d ':\\n' > drive.key; echo >> drive.key
  stenc -f /dev/nst0 -e mixed -k drive.key -a 1 --ckod
"""

#: In the HEADER of a 7z.
_NOT_IN_7Z = """\
A 7z holds names, contents, times and modes. Owners, hard links, devices and the like are in the
TRAILER only.
"""


_KEY_TEXTS: dict[str | None, str] = {AGE: _ENCRYPTED, DRIVE: _BY_DRIVE}


def label_text(label: Label) -> str:
    """Return the lines of a LABEL, each ended by a newline."""
    dd = _dd(label.block_size)
    return f"""\
This tape holds backups written by tapefs. Its name is {_quoted(label.label)}.
Every backup on it is an ordinary archive: .tar.zst, .tar.gz, .tar or .7z. You need no
special software to read it: a Linux system with mt, dd, zstd, gzip and tar is enough.

The tape is a row of files, each ended by a filemark, counted from 0:
  0        this label
  1        the set label: this tape's place among others
  then, for each piece of a backup (a segment), three files:
           HEADER   text like this one; it names the backup and the commands that restore it
           PAYLOAD  the archive itself and nothing else
           TRAILER  a list of what is in the payload: JSON lines, compressed with zstd
  between  SET INDEX, a list of a whole backup: JSON lines, compressed with zstd
Blocks are of variable length, at most {label.block_size} bytes.

To see what tape file N is, as root (every command is one line):
  mt -f /dev/nst0 setblk 0
  mt -f /dev/nst0 rewind
  mt -f /dev/nst0 fsf N
  {dd} count=1 | head -c 4000
HEADERs are readable; start with N = 2 and follow them. To list a TRAILER or SET INDEX:
  {dd} | zstd -dc
To restore a PAYLOAD into the current directory (its HEADER has the exact command):
  {dd} | zstd -dc | {_TAR}

The next line but one says the same to programs; the last line is a checksum of all before it.
"""


def set_label_text(s: SetLabel) -> str:
    """Return the lines of a SET LABEL, each ended by a newline."""
    return f"""\
This is tape number {s.sequence} of the volume set {_quoted(s.volume_set)}, counted from 1.
The tape before it: {s.previous_volume or "none"}.
{_encryption_text(s)}
How to read the tape stands in tape file 0.

The next line but one says the same to programs; the last line is a checksum of all before it.
"""


def _encryption_text(s: SetLabel) -> str:
    if s.key_fingerprint is None:
        return "Its data is not encrypted."
    if s.encryption == DRIVE:
        return f"""\
Its data is encrypted by the drive ({s.algorithm}); key fingerprint {_quoted(s.key_fingerprint)}.
This label, the one before it and the HEADERs are not. To read all else, the drive has to be given
the key of this tape: a HEADER, from tape file 2 on, says how. Then it reads like any tape."""
    return f"""\
Its data is encrypted; key fingerprint {_quoted(s.key_fingerprint)}.
This label, the one before it and the HEADERs are not. All else are files of the program
age (age-encryption.org/v1): with the key in key.txt, put behind each dd: | {AGE_COMMAND}
The fingerprint of a key: age-keygen -y key.txt | tr -d '\\n' | sha256sum | cut -c-32"""


def header_text(h: Header, payload_file: int, codec: Codec) -> str:
    """Return the lines of a HEADER, each ended by a newline; `codec` is that of the payload."""
    decrypt = AGE_COMMAND if h.encryption == AGE else ""
    dd = " | ".join(filter(None, (_dd(h.block_size), decrypt)))
    key = _KEY_TEXTS.get(h.encryption, "").format(fingerprint=_quoted(h.key_fingerprint or ""), info=DRIVE_KEY_INFO)
    commands = "\n".join(f"  {line}" for line in restore_commands(h.block_size, codec, decrypt))
    trailer = payload_file + 1
    kind, to_list, missing = ("tar", '"tar -tvf -"', "") if codec.is_tar else ("7z", '"7z l"', _NOT_IN_7Z)
    return f"""\
The next file on this tape is a piece of a backup: segment {h.number} of the {_quoted(h.type)} backup
{_quoted(h.job_name)} of host {_quoted(h.host)}, an ordinary {kind} archive{", encrypted" if h.encryption else ""}.
It is tape file {payload_file}, counted from 0 at the beginning of the tape. To restore all that is in
it into the current directory, as root (every command is one line):
  mt -f /dev/nst0 setblk 0
  mt -f /dev/nst0 rewind
  mt -f /dev/nst0 fsf {payload_file}
{commands}
{key}{missing}To list it only, end the last command with {to_list}. Tape file {trailer} is the TRAILER, the list
of the contents with SHA-256 sums; if it is missing, the writing was interrupted and this
archive may be cut short:
  {dd} | zstd -dc
All segments with the same "set" in the line below belong to one backup: restore each of them,
on this and on other tapes, in the order of "number". A file that is too large for one segment
is stored as NAME.tapefs-part-0000, NAME.tapefs-part-0001, ...: join them with cat.

The next line but one says the same to programs; the last line is a checksum of all before it.
"""


def restore_commands(block_size: int, codec: Codec, decrypt: str = "") -> list[str]:
    """Return the lines that restore the payload which begins where the tape stands."""
    if codec.is_tar:
        return [" | ".join(filter(None, (_dd(block_size), decrypt, codec.unpack_command, _TAR)))]
    return [" | ".join(filter(None, (_dd(block_size), decrypt))) + " > payload.7z", "7z x payload.7z"]


def _dd(block_size: int) -> str:
    """Return the dd command that reads a tape file."""
    return f"dd if=/dev/nst0 bs={block_size if block_size > _DD_BYTES else '1M'}"


def _quoted(text: str) -> str:
    """Return a text in quotes, in ASCII, on one line."""
    return json.dumps(text)
