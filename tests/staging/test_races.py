"""Several processes on one staging folder."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.staging.content import (
    FRAME_BYTES,
    FRAMES,
    PLAIN,
    create_and_publish,
    keep_evicting,
    keep_pinning,
    keep_publishing,
    opened,
    pin_for_ever,
    publish_all,
    read_and_compare,
)

SPAWN = multiprocessing.get_context("spawn")
SECONDS = 3.0


def test_readers_get_the_right_bytes_or_none_while_frames_come_and_go(tmp_path):
    folder = tmp_path / "staging"
    # That all of them were at work: published frames, freed bytes, hits, cold reads, held pins.
    enough = (50, 50 * FRAME_BYTES, 500, 20, 5)
    done = (0,) * len(enough)
    with ProcessPoolExecutor(5, mp_context=SPAWN) as pool:
        for turn in range(20):
            published = pool.submit(keep_publishing, folder, SECONDS)
            freed = pool.submit(keep_evicting, folder, SECONDS, turn)
            readers = [pool.submit(read_and_compare, folder, SECONDS, 100 * turn + seed) for seed in (2, 3)]
            pins = pool.submit(keep_pinning, folder, SECONDS, turn)
            hits, cold, wrong = (sum(counts) for counts in zip(*(reader.result() for reader in readers), strict=True))
            held, wrong_pinned = pins.result()
            assert (wrong, wrong_pinned) == (0, 0)
            counts = (published.result(), freed.result(), hits, cold, held)
            done = tuple(each + more for each, more in zip(done, counts, strict=True))
            # On a busy machine some may have begun when others had ended.
            if all(each > least for each, least in zip(done, enough, strict=True)):
                break
        else:
            raise AssertionError(done)


def test_create_from_four_processes_at_once_makes_one_stage(tmp_path):
    for attempt in range(3):
        folder = tmp_path / f"staging{attempt}"
        with ProcessPoolExecutor(4, mp_context=SPAWN) as pool:
            inodes = set(pool.map(create_and_publish, [folder] * FRAMES, range(FRAMES)))
        assert len(inodes) == 1
        with opened(folder) as stage:
            assert stage.read(0, len(PLAIN)) == PLAIN
        assert {path.suffix for path in folder.iterdir()} == {".plain", ".map", ""}


def test_pins_of_a_killed_process_are_gone(tmp_path):
    folder: Path = tmp_path / "staging"
    with opened(folder) as stage:
        publish_all(stage)
        process = SPAWN.Process(target=pin_for_ever, args=(folder, 3, 6, tmp_path / "ready"))
        process.start()
        try:
            while not (tmp_path / "ready").exists():
                assert process.is_alive()
                time.sleep(0.01)
            assert stage.evict(range(FRAMES)) == (FRAMES - 3) * FRAME_BYTES
            assert stage.has(range(3, 6))
        finally:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        assert stage.evict(range(FRAMES)) == 3 * FRAME_BYTES
