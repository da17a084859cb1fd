"""What stands in `tapefs/README.txt` on a volume, for who finds it without knowing tapefs. No state."""

from __future__ import annotations

README_NAME = "README.txt"
README = """\
This folder is a medium of tapefs, a tape archive. Each file with a number for a name is what would be
one tape file on a tape: 00000 and 00001 are labels, then three files for each segment of a backup:

  HEADER   readable text: what the segment is, when and where it was made, and how it is restored
  PAYLOAD  an ordinary archive: .tar.zst, .tar.gz, .tar or .7z, as the HEADER says ("codec")
  TRAILER  the list of what is in it, compressed with zstd

and at the end of a backup a list of all (SET INDEX, compressed with zstd). To read them nothing but common
programs is needed. The commands in the HEADER are for tapes: here, in place of "dd if=...", it is simply

  head -20 00002                                    the first HEADER
  zstd -dc 00003 | tar -tvf -                       list what is in the PAYLOAD behind it
  zstd -dc 00003 | tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf -      restore it

Please change nothing here. The lengths of the blocks are in the extended attribute user.tapefs.blocks of each
file, or in a file NUMBER.blocks: a copy needs them (cp -a, rsync -aX) before tapefs writes to it again.
"""
