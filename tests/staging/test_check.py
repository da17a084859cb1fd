import os
from pathlib import Path

import pytest

from tapefs.staging.check import BadFrame, check_staging
from tests.staging.content import (
    FRAME_BYTES,
    FRAMES,
    OTHER,
    PLAIN,
    SEGMENT,
    flip,
    opened,
    publish_all,
    reboot,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staging"


def test_a_missing_folder_is_clean(folder):
    findings = check_staging(folder, repair=False)
    assert findings.is_clean
    assert findings.segments == findings.frames == 0


def test_everything_staged_is_compared(folder):
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        two.publish(3, PLAIN[3 * FRAME_BYTES : 4 * FRAME_BYTES])
    seen: list[int] = []
    findings = check_staging(folder, repair=False, progress=lambda _, count: seen.append(count))
    assert findings.is_clean
    assert (findings.segments, findings.frames, findings.bytes) == (2, FRAMES + 1, (FRAMES + 1) * FRAME_BYTES)
    assert sum(seen) == findings.bytes


@pytest.mark.parametrize("rebooted", [False, True])
def test_every_flipped_frame_is_found_and_with_repair_dropped(folder, monkeypatch, rebooted):
    with opened(folder) as one:
        publish_all(one)
    for frame in (0, 7, FRAMES - 1):
        flip(folder, SEGMENT, frame * FRAME_BYTES + 1000 * frame)
    if rebooted:
        reboot(monkeypatch)
    wrong = [BadFrame(SEGMENT, frame) for frame in (0, 7, FRAMES - 1)]
    # Twice: looking changes nothing.
    assert check_staging(folder, repair=False).wrong == wrong
    assert check_staging(folder, repair=True).wrong == wrong
    again = check_staging(folder, repair=False)
    assert again.is_clean
    assert again.frames == FRAMES - 3
    with opened(folder) as one:
        one.revive(range(FRAMES))
        assert one.missing(range(FRAMES)) == [0, 7, FRAMES - 1]


@pytest.mark.parametrize("suffix", ["plain", "map"])
def test_files_that_cannot_be_used(folder, suffix, caplog):
    with opened(folder) as one, opened(folder, OTHER):
        publish_all(one)
    os.truncate(folder / f"{SEGMENT}.{suffix}", 100)
    assert check_staging(folder, repair=False).unusable == [SEGMENT]
    assert (folder / f"{SEGMENT}.plain").exists()
    assert check_staging(folder, repair=True).unusable == [SEGMENT]
    assert not (folder / f"{SEGMENT}.plain").exists()
    assert check_staging(folder, repair=False).is_clean
