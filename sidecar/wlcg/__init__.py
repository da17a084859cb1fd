"""The WLCG Tape REST API, version 1: what FTS, gfal2 and dCache clients speak to have files staged."""
