"""Who may call over HTTP: secrets, users, sessions, addresses, and the gate that puts them together."""
