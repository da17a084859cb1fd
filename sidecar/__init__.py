"""The sidecar: HTTP, jobs, recalls and the library; it starts and watches the movers and never touches file content."""
