"""What a search over many sets finds is what a walk through all of them finds."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import CatalogError, StorageFailed
from catalog.ids import SetId
from catalog.index.model import Entry
from catalog.names import builder, layout
from catalog.records import BackupSet
from tapefs.errors import NoSuchThing
from tapefs.search import find as find_module
from tapefs.search import names as names_module
from tapefs.search.content import attributes_of, content_of
from tapefs.search.find import find
from tapefs.search.query import KINDS, Match, Query
from tapefs.search.versions import residency_of, versions
from tapefs.vfs.archive import Archive
from tapefs.vfs.nodes import first_name
from tapefs.vfs.residency import State
from tests.backup.edits import Editor
from tests.backup.rig import Rig

SETS = 9


@dataclass
class Shown:
    """A path in a set."""

    backup_set: BackupSet
    entry: Entry
    version: object


@dataclass
class Past:
    """A state folder with a chain of sets of each of two jobs, and what a walk through each shows."""

    rig: Rig
    sets: list[BackupSet]
    #: Per set by path.
    trees: dict[SetId, dict[bytes, Shown]]

    def archive(self) -> Archive:
        return Archive(self.rig.home, self.rig.ledger)

    def expected(self, query: Query, sets: list[BackupSet]) -> dict[tuple[str, bytes], list[Shown]]:
        """Return of every path that fits the distinct versions that fit, the newest first."""
        found: dict[tuple[str, bytes], list[Shown]] = {}
        for each in reversed(sets):
            for path, shown in self.trees[each.set_id].items():
                name = path.rpartition(b"/")[2]
                if not any(fnmatch.fnmatchcase(os.fsdecode(name), pattern) for pattern in query.patterns):
                    continue
                known = found.setdefault((each.name, path), [])
                if query.accepts(shown.entry) and shown.version not in [other.version for other in known]:
                    known.append(shown)
        return {key: known for key, known in found.items() if known}


def walk(archive: Archive, backup_set: BackupSet) -> dict[bytes, Shown]:
    reader = archive.index(backup_set.set_id)
    shown = {}
    for found in archive.walk(reader, archive.resolve(reader, b"")):
        if found.entry is not None and found.number is not None:
            number, entry = first_name(reader, found.number, found.entry)
            version = (attributes_of(entry), content_of(reader, number, entry).identity)
            shown[found.path] = Shown(backup_set, entry, version)
    return shown


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("past")
    rig = Rig(folder)
    try:
        for name, seed in (("one", 3), ("two", 4)):
            editor = Editor(folder / name, seed)
            job = rig.queued(folder / name, name=name)
            rig.run(job)
            for number in range(1, SETS):
                editor.edit(6)
                if number == 5:
                    with open(os.fsencode(folder / name) + b"/caf\xe9\nx.txt", "wb") as file:
                        file.write(b"x" * number)
                kind = {3: "differential", 4: "differential", 6: "full"}.get(number, "incremental")
                rig.again(job, type=kind)
        archive = Archive(rig.home, rig.ledger)
        sets = archive.complete_sets()
        trees = {each.set_id: walk(archive, each) for each in sets}
        archive.close()
        yield Past(rig, sets, trees)
    finally:
        rig.close()


def search(past: Past, query: Query) -> list[Match]:
    archive = past.archive()
    try:
        return list(find(past.rig.home, archive, query))
    finally:
        archive.close()


def version_of(past: Past, match: Match) -> object:
    """Return the version that the matched set shows at the matched path."""
    return past.trees[match.backup_set.set_id][match.path].version


PATTERNS = st.sampled_from(
    ["*", "a*", "*1", "*é*", "B?", "[az]*", "*z [!z]*", "zz", "*\n*", "caf?\n*", "?[0-9]*", "src"]
)
QUERIES = st.builds(
    Query,
    patterns=st.lists(PATTERNS, min_size=1, max_size=2).map(tuple),
    jobs=st.sampled_from([frozenset(), frozenset(["one"]), frozenset(["one", "two"])]),
    kinds=st.sampled_from([frozenset(), frozenset([KINDS["f"]]), frozenset([KINDS["d"], KINDS["l"]])]),
    min_bytes=st.sampled_from([None, None, 0, 200]),
    max_bytes=st.sampled_from([None, None, 1000]),
)


@given(QUERIES, st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_newest_version_of_every_path_and_all_of_them(past: Past, query: Query, data: st.DataObject) -> None:
    sets = [each for each in past.sets if not query.jobs or each.name in query.jobs]
    span = data.draw(st.sampled_from(["all", "set", "since", "until", "between"]))
    times = sorted(each.started_at_ns for each in sets)
    if span == "set":
        chosen = data.draw(st.sampled_from(sets))
        query, sets = change(query, set_id=chosen.set_id), [chosen]
    if span in ("since", "between"):
        since_ns = data.draw(st.sampled_from(times))
        query, sets = change(query, since_ns=since_ns), [each for each in sets if each.started_at_ns >= since_ns]
    if span in ("until", "between"):
        until_ns = data.draw(st.sampled_from(times))
        query, sets = change(query, until_ns=until_ns), [each for each in sets if each.started_at_ns <= until_ns]
    expected = past.expected(query, sets)

    newest = search(past, query)
    assert sorted((match.backup_set.name, match.path) for match in newest) == sorted(expected)
    for match in newest:
        first = expected[match.backup_set.name, match.path][0]
        assert version_of(past, match) == first.version
        assert match.backup_set == first.backup_set

    counted = search(past, change(query, count_versions=True, attributes=True))
    counts = {(match.backup_set.name, match.path): match.versions for match in counted}
    assert counts == {key: len(known) for key, known in expected.items()}
    for match in counted:
        assert match.entry == past.trees[match.backup_set.set_id][match.path].entry

    every: dict[tuple[str, bytes], list[object]] = {}
    for match in search(past, change(query, every=True)):
        every.setdefault((match.backup_set.name, match.path), []).append(version_of(past, match))
    assert every == {key: [shown.version for shown in known] for key, known in expected.items()}


def change(query: Query, **changes: object) -> Query:
    fields = {name: getattr(query, name) for name in Query.__slots__}
    return Query(**{**fields, **changes})


def test_what_is_found_comes_by_name(past: Past) -> None:
    names = [match.path.rpartition(b"/")[2] for match in search(past, Query(("*",)))]
    assert names == sorted(names)
    assert len(names) > 50


def test_a_name_with_many_entries_is_gone_through_in_pieces(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search(past, Query(("*",), count_versions=True))
    monkeypatch.setattr(find_module, "GROUP_ENTRIES", 2)
    pieces = search(past, Query(("*",), count_versions=True))
    key = lambda match: (match.backup_set.number, match.path)  # noqa: E731
    assert sorted(pieces, key=key) == sorted(whole, key=key)


def test_whole_paths(past: Past) -> None:
    found = {match.path for match in search(past, Query(("*/one/*",), whole_path=True))}
    expected = {path for tree in past.trees.values() for path in tree if b"/one/" in b"/" + path}
    assert found == expected
    assert search(past, Query((r"/one/[^/]*$",), whole_path=True, regex=True))


def test_small_blocks_and_sorting_on_disk_change_nothing(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are made anew, from sorted runs of a few records, in blocks of a few names."""
    queries = [Query((each, "B?"), every=True) for each in ("*[13579]*", "a*", "a1", "é*", "zz*", "~", "z z1?")]
    before = [search(past, query) for query in queries]
    assert all(before[:4])
    whole = {each.set_id: past.rig.home.names(each.set_id).read_bytes() for each in past.sets}
    sorter = builder.Sorter
    monkeypatch.setattr(builder, "Sorter", lambda folder: sorter(folder, 7))
    remake(past)
    assert {each.set_id: past.rig.home.names(each.set_id).read_bytes() for each in past.sets} == whole
    monkeypatch.setattr(layout, "BLOCK_BYTES", 64)
    monkeypatch.setattr(layout, "CHUNK_RUNS", 3)
    remake(past)
    assert {each.set_id: past.rig.home.names(each.set_id).read_bytes() for each in past.sets} != whole
    assert [search(past, query) for query in queries] == before
    monkeypatch.undo()
    remake(past)


def remake(past: Past) -> None:
    for each in past.sets:
        builder.build_names(past.rig.home.index(each.set_id), past.rig.home.names(each.set_id))


def test_missing_files_are_made(past: Past) -> None:
    before = search(past, Query(("*",)))
    whole = [past.rig.home.names(each.set_id).read_bytes() for each in past.sets]
    for each in past.sets:
        past.rig.home.names(each.set_id).unlink()
    assert search(past, Query(("*",))) == before
    assert [past.rig.home.names(each.set_id).read_bytes() for each in past.sets] == whole


def test_who_may_not_write_searches_all_the_same(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    before = search(past, Query(("*",)))

    def refuse(index: Path, path: Path, look_around: object) -> None:
        raise StorageFailed("read-only file system", retryable=False)

    past.rig.home.names(past.sets[2].set_id).unlink()
    monkeypatch.setattr(names_module, "build_names", refuse)
    assert search(past, Query(("*",))) == before
    assert not past.rig.home.names(past.sets[2].set_id).exists()
    monkeypatch.undo()
    remake(past)


@pytest.mark.log_warnings
@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_flipped_bit_changes_no_answer(past: Past, data: st.DataObject) -> None:
    """Damaged files are noticed when they are read, and made anew."""
    query = Query(("*",), every=True)
    path = past.rig.home.names(data.draw(st.sampled_from(past.sets)).set_id)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    broken = bytearray(whole)
    broken[place // 8] ^= 1 << place % 8
    cut = data.draw(st.sampled_from([None, None, None, 0, 10, len(whole) - 1]))
    path.write_bytes(broken[:cut])
    try:
        assert [(each.path, each.number, each.backup_set) for each in search(past, query)] == whole_answer(past)
        # Only the head, which nobody asks, may still be broken.
        assert path.read_bytes() == whole or place // 8 < layout.HEAD.size
    finally:
        path.write_bytes(whole)


_answers: dict[int, list[tuple[bytes, int, BackupSet]]] = {}


def whole_answer(past: Past) -> list[tuple[bytes, int, BackupSet]]:
    """Return what is found while nothing is damaged; asked first before the first damage."""
    if id(past) not in _answers:
        saved = {each.set_id: past.rig.home.names(each.set_id).read_bytes() for each in past.sets}
        remake(past)
        matches = search(past, Query(("*",), every=True))
        _answers[id(past)] = [(each.path, each.number, each.backup_set) for each in matches]
        for set_id, data in saved.items():
            past.rig.home.names(set_id).write_bytes(data)
    return _answers[id(past)]


def test_a_set_without_its_index_is_an_error(past: Past, tmp_path: Path) -> None:
    index = past.rig.home.index(past.sets[0].set_id)
    names = past.rig.home.names(past.sets[0].set_id)
    names.rename(tmp_path / "names")
    index.rename(tmp_path / "index")
    try:
        with pytest.raises(CatalogError):
            search(past, Query(("*",)))
    finally:
        (tmp_path / "index").rename(index)
        (tmp_path / "names").rename(names)


def test_a_job_without_sets(past: Past) -> None:
    with pytest.raises(NoSuchThing, match="nobody"):
        search(past, Query(("*",), jobs=frozenset(["nobody"])))


def test_versions_of_every_path(past: Past) -> None:
    """Set after set, versions begin where a path looks otherwise than before, or is gone."""
    archive = past.archive()
    stack = ExitStack()
    residency = stack.enter_context(residency_of(past.rig.home, past.rig.ledger))
    paths = {path for tree in past.trees.values() for path in tree}
    for path in paths:
        expected = []
        for name in ("one", "two"):
            before: object = None
            is_begun = False
            for each in (each for each in past.sets if each.name == name):
                shown = past.trees[each.set_id].get(path)
                version = None if shown is None else shown.version
                if version != before and (is_begun or shown is not None):
                    expected.append((each.set_id, version is None, 1))
                    is_begun = True
                elif is_begun:
                    expected[-1] = (*expected[-1][:2], expected[-1][2] + 1)
                before = version
        found = list(versions(archive, b"/" + path + b"/", residency))
        assert [(each.backup_set.set_id, each.entry is None, each.sets) for each in found] == expected
        for last, each in pairwise(found):
            if each.same_content and last.entry is not None and each.entry is not None:
                assert last.sha256 == each.sha256
                assert stat.S_IFMT(last.entry.mode) == stat.S_IFMT(each.entry.mode)
        for each in found:
            is_regular = each.entry is not None and stat.S_ISREG(each.entry.mode)
            is_stored = each.entry is not None and each.entry.blocks > 0
            expected_state = (State.NEARLINE if is_stored else State.ONLINE) if is_regular else None
            assert each.state is expected_state
    assert list(versions(archive, b"no/such/path", residency)) == []
    assert list(versions(archive, b"", residency)) == []
    stack.close()
    archive.close()


def test_a_search_can_be_given_up_at_any_block(past: Past) -> None:
    asked: list[int] = []

    def look_around() -> None:
        asked.append(1)
        if len(asked) == 30:
            raise InterruptedError

    archive = past.archive()
    with pytest.raises(InterruptedError):
        list(find(past.rig.home, archive, Query(("*",)), look_around))
    archive.close()
