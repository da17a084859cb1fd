"""Who may do what over HTTP: what the command line, the settings and the sidecar share about it."""
