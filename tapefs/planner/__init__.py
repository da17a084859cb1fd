"""In which order a tape gives what is wanted of it. Pure: no I/O, no clock but a budget's, no trio; any thread.

`records` has what goes in and comes out, `plan` the one way in. Tapes that lie straight before the head (`linear`) are
planned by the algorithms of the linear tape scheduling problem, LTO cartridges (`serpentine`) by several orders and a
local search. `numpy` is imported by the modules that compute with it, and those only when they are needed: neither the
start of a command nor a mount pays for it.
"""
