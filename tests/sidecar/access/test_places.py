"""What operators may name of this host: only what the settings list, and nobody leaves it by links or races."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapefs.access.places import is_escape, open_target, root_of
from tapefs.errors import UsageError
from tests.sidecar.access.rig import serving
from tests.sidecar.rig import Rig

ROOTS = ("/home", "/srv/data/")


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (b"/home", b"/home"),
        (b"/home/", b"/home"),
        (b"//home//ada/./x", b"/home"),
        (b"/srv/data/\xff", b"/srv/data"),
        (b"/homes", None),
        (b"/home/../etc", None),
        (b"/srv", None),
        (b"/", None),
        (b"home", None),
        (b"", None),
        (b"/home\0/etc", None),
    ],
)
def test_paths_are_in_a_root_or_not(path: bytes, root: bytes | None) -> None:
    assert root_of(path, ROOTS) == root


def test_a_root_of_everything() -> None:
    assert root_of(b"/etc", ["/"]) == b"/"
    assert root_of(b"/etc", []) is None


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path, str]]:
    folder = tmp_path_factory.mktemp("places")
    for name in ("in/docs", "out"):
        (folder / name).mkdir(parents=True)
    with serving(folder / "home", f'[access]\nsources = ["{folder}/in"]') as rig:
        yield rig, folder, rig.unix("POST", "/api/v1/tokens", {"role": "operator"}).body["secret"]


def test_operators_name_sources_of_the_list(places: tuple[Rig, Path, str]) -> None:
    rig, folder, operator = places
    inside, outside = str(folder / "in/docs"), str(folder / "out")

    def ask(method: str, path: str, body: object, token: str = operator) -> int:
        return rig.tcp(method, path, body, token=token).status

    new = {"name": "docs", "run": False}
    assert ask("POST", "/api/v1/jobs", new | {"sources": [inside]}) == 201
    for sources in ([outside], [inside, outside], [f"{inside}/../../out"], ["/"], ["/nowhere at all"], ["docs"]):
        assert ask("POST", "/api/v1/jobs", new | {"sources": sources}) == 403, sources
    assert ask("PATCH", "/api/v1/jobs/1", {"sources": [outside]}) == 403
    assert ask("PATCH", "/api/v1/jobs/1", {"description": "mine"}) == 200
    task = {"task_name": "t", "source_paths": [outside]}
    assert ask("POST", "/api/backup/tasks", task) == 403
    assert ask("PUT", "/api/backup/tasks/1", {"source_paths": [outside]}) == 403
    admins = rig.tcp("POST", "/api/v1/jobs", new | {"name": "all", "sources": [outside]}).body["number"]
    assert ask("PATCH", f"/api/v1/jobs/{admins}", {"type": "archive"}) == 403, "that would remove its sources"
    assert ask("PUT", f"/api/backup/tasks/{admins}", {"description": "x"}) == 403
    assert rig.job(admins)["type"] == "full"
    assert ask("DELETE", f"/api/v1/jobs/{admins}", None) == 403
    assert ask("DELETE", f"/api/backup/tasks/{admins}", None) == 403
    assert ask("DELETE", "/api/v1/jobs/1", None) == 204


def test_a_target_is_opened_without_following_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "in", tmp_path / "out"
    (root / "a/b").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "a/up").symlink_to("../..")
    roots = [str(root)]
    fd = open_target(os.fsencode(root / "a/b"), roots)
    try:
        assert os.path.samestat(os.fstat(fd), (root / "a/b").stat())
    finally:
        os.close(fd)
    for path in ("link", "a/up", "a/up/out", "link/x"):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory") as caught:
            open_target(os.fsencode(root / path), roots)
        assert is_escape(caught.value), path
    for path in (outside, root / "a/../../out"):
        with pytest.raises(UsageError):
            open_target(os.fsencode(path), roots)


def test_a_target_that_is_swapped_for_a_link(tmp_path: Path) -> None:
    """Thousands of tries while somebody swaps a folder for a link and back: never is the other side opened."""
    root, outside = tmp_path / "in", tmp_path / "out"
    for folder in (root / "dir/sub", outside / "sub"):
        folder.mkdir(parents=True)
    (root / "link").symlink_to(outside)
    wanted, ended = (root / "dir/sub").stat(), threading.Event()

    def swap() -> None:
        while not ended.is_set():
            os.rename(root / "dir", root / "kept")
            os.rename(root / "link", root / "dir")
            os.rename(root / "dir", root / "link")
            os.rename(root / "kept", root / "dir")

    thread = threading.Thread(target=swap)
    thread.start()
    opened = refused = 0
    try:
        while (opened < 300 or refused < 300) and opened + refused < 50_000:
            try:
                fd = open_target(os.fsencode(root / "dir/sub"), [str(root)])
            except OSError:
                refused += 1
                continue
            opened += 1
            assert os.path.samestat(os.fstat(fd), wanted)
            os.close(fd)
    finally:
        ended.set()
        thread.join()
    assert opened
    assert refused
