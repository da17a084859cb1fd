"""The staging area from the command line; no sidecar is needed."""

from __future__ import annotations

import json

from tests.staging.content import FRAME_BYTES, FRAMES, SEGMENT, flip, opened, publish_all


def test_check_says_what_is_wrong_and_the_exit_code_tells(tapefs, home):
    with opened(home.staging) as stage:
        publish_all(stage)
    clean = tapefs("staging", "check")
    assert clean.code == 0
    assert clean.out == ""
    assert clean.err == f"check: {FRAMES} frames of 1 segment, 1.1 MiB, all right\n"
    flip(home.staging, SEGMENT, 3 * FRAME_BYTES)
    found = tapefs("staging", "check")
    assert found.code == 1
    assert found.out == f"segment {SEGMENT}, frame 3: not what came from tape\n"
    assert "--repair drops that" in found.err
    repaired = tapefs("staging", "check", "--repair", "--json")
    assert repaired.code == 1
    assert json.loads(repaired.out) == {
        "segments": 1,
        "frames": FRAMES,
        "bytes": FRAMES * FRAME_BYTES,
        "wrong": [{"segment": SEGMENT, "frame": 3}],
        "unusable": [],
        "repaired": True,
    }
    assert repaired.one_line() == "1 frames are wrong, 0 segments cannot be used; all that was dropped"
    assert tapefs("staging", "check").code == 0


def test_what_is_staged(tapefs, home):
    assert "0 frames of 0 segments" in tapefs("staging").out
    with opened(home.staging) as stage:
        publish_all(stage)
        stage.evict(range(4))
    assert f"{FRAMES - 4} frames of 1 segment" in tapefs("staging").out
    shown = json.loads(tapefs("staging", "--json").out)
    assert shown["frames"] == FRAMES - 4
    assert shown["used_bytes"] in range((FRAMES - 4) * FRAME_BYTES, FRAMES * FRAME_BYTES)
    assert shown["doubtful_frames"] == 0
