"""Which sets stay and which may go, and letting them go. Blocking; no tape moves."""
