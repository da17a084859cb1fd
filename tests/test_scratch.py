"""A map that spills to disk behaves as a dictionary, however little of it is in memory."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import StorageFailed
from tapefs.scratch import ScratchMap


class Pair(NamedTuple):
    """A value."""

    number: int
    name: bytes


def pair(values: tuple[object, ...]) -> Pair:
    return Pair(*cast("tuple[int, bytes]", values))


keys = st.binary(min_size=1, max_size=2).map(lambda key: key[:1] * 2)
pairs = st.builds(Pair, st.integers(-(2**80), 2**80), st.binary(max_size=9))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, pairs),
        st.tuples(st.just("drop"), keys, pairs),
        st.tuples(st.just("change"), keys, pairs),
    ),
    max_size=60,
)


@given(steps=steps, kept=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_it_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes, Pair]], kept: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    scratch: ScratchMap[Pair] = ScratchMap(folder, pair, kept)
    model: dict[bytes, Pair] = {}
    for step, key, value in steps:
        if step == "put":
            scratch.put(key, value)
            model[key] = value
        elif step == "drop":
            scratch.drop(key)
            model.pop(key, None)
        else:
            # Those below the value are forgotten, the others become it.
            scratch.change_all(lambda old, new=value: None if old < new else new)  # type: ignore[misc]
            model = {name: value for name, old in model.items() if old >= value}
        assert len(scratch) == len(model)
    assert {key: scratch.get(key) for key in model} == model
    assert scratch.get(b"not there") is None
    scratch.close()
    scratch.close()


def test_the_file_has_no_name(tmp_path: Path) -> None:
    """Whatever happens to the process, nothing stays behind."""
    scratch = ScratchMap(tmp_path, pair, 2)
    for number in range(5000):
        scratch.put(b"%d" % number, Pair(number, b"n" * 100))
    assert os.listdir(tmp_path) == []
    assert scratch.get(b"7") == Pair(7, b"n" * 100)
    scratch.close()


@pytest.mark.parametrize("operation", ["put", "get", "drop", "change_all"])
def test_a_disk_that_fails_is_an_error_of_the_storage(tmp_path: Path, operation: str) -> None:
    scratch = ScratchMap(tmp_path, pair, 1)
    for number in range(10):
        scratch.put(b"%d" % number, Pair(number, b""))

    class Failing:
        def __getattr__(self, name: str) -> object:
            raise sqlite3.OperationalError("disk I/O error")

    scratch._far = Failing()  # type: ignore[assignment]
    operations = {
        "put": partial(scratch.put, b"x", Pair(1, b"")),
        "get": partial(scratch.get, b"0"),
        "drop": partial(scratch.drop, b"0"),
        "change_all": partial(scratch.change_all, lambda old: old),
    }
    with pytest.raises(StorageFailed, match="disk I/O error"):
        operations[operation]()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    scratch = ScratchMap(tmp_path / "none", pair, 0)
    with pytest.raises(StorageFailed, match="No such file"):
        scratch.put(b"x", Pair(1, b""))
