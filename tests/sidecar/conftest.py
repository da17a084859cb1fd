"""One sidecar for all tests of a module that only ask; those that end or break one make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sidecar.rig import Rig, make_home, running


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = make_home(tmp_path_factory.mktemp("sidecar") / "home")
    with running(home, listen=True) as rig:
        yield rig
