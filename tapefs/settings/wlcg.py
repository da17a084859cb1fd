"""[wlcg]: what clients of the grid's Tape REST API are told."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class WlcgSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients of the WLCG Tape REST API are told."""

    #: Empty for the host's name.
    sitename: str = ""
    description: str = ""
    #: Where they reach the API, without its path: `https://tape.example:8443`; empty: where they have asked.
    uri: str = ""
    #: So long a file stays staged whose client has not said.
    lifetime_s: Annotated[int, Meta(gt=0)] = 3 * 86_400
