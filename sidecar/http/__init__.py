"""The HTTP interface's foundation: listeners, gates, calls, callers, bodies, answers, errors, OpenAPI."""
