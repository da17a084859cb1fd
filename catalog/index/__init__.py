"""The namespace index: one immutable LMDB file per set, written once by `writer`, read by `reader`."""
