"""When something is due, and what becomes of it: rules, blackouts, policies. Pure: time and records are passed in.

    zones         wall clocks and instants, over changes of the clocks
    rules         the instants of a rule
    blackouts     when nothing may begin
    policies      which runs are planned, and what becomes of one that is due

The sidecar's `scheduling` keeps the clock and the ledger.
"""
