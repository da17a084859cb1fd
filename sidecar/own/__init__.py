"""The sidecar's own HTTP interface under /api/v1: what the mount and the command line use."""
