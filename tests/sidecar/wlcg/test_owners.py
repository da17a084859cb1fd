"""Whose a request to stage is."""

from __future__ import annotations

import pytest

from catalog.stage_records import StageRequest
from sidecar.http.callers import Caller
from sidecar.wlcg.bulk import is_of


@pytest.mark.parametrize(
    ("owner_id", "name", "identity", "is_his"),
    [
        ("token 1", "token fts", "token 1", True),
        ("token 1", "token fts", "token 2", False),
        ("token 1", "token renamed", "token 1", True),
        ("token 1", "token fts", "", False),
        # Of an earlier version: the name is all that is known.
        ("", "token fts", "token 2", True),
        ("", "token other", "token 1", False),
    ],
)
def test_a_request_is_of_who_made_it(owner_id: str, name: str, identity: str, is_his: bool) -> None:
    request = StageRequest(request_id="r", owner="token fts", owner_id=owner_id, created_at_ns=1, files=())
    assert is_of(request, Caller(name, None, identity=identity)) is is_his
