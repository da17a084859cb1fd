"""The blocking client of the sidecar's HTTP interface, for the command line and for scripts in Python."""
