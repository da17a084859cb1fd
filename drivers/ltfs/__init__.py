"""A mounted LTFS volume, or a folder of any other file system, as the medium. Described in docs/ltfs.md."""
