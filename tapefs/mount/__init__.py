"""The FUSE mount: a thin adapter over `tapefs.vfs` and the staging cache, in a process of its own, under trio."""
