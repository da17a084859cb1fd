"""Restores on the sidecar's host that somebody asks for over HTTP."""
