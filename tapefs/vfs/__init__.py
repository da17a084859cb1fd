"""What the archive looks like: the one description of its tree that the mount, the command line and HTTP all show.

Blocking Python over the ledger and the namespace indexes; a look-up takes microseconds, so event loops
call it directly.
"""
