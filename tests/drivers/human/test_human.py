"""The human as a changer: the contract with a human who obeys, and humans who do something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers.config import LibraryConfig
from drivers.errors import ChangerError, DeviceFailed, NotReady, SlotEmpty
from drivers.human.changer import HumanChanger, Seen
from drivers.human.desk import Answer, Desk, Prompt
from drivers.interface import Changer
from drivers.registry import check_library, open_changer
from tests.drivers.benches import VirtualLibraryBench
from tests.drivers.contract import ChangerBench, ChangerContract, places
from tests.drivers.human.player import Hands, VirtualEyes, changer_of


@dataclass
class HumanBench(VirtualLibraryBench):
    """The virtual library, served by a human."""

    def open(self) -> Changer:
        changer, _ = changer_of(self.folder, self.folder.parent / "notes", 2)
        changer.add(["TP0001L9", "TP0002L9"])
        return changer


class TestHumanChanger(ChangerContract):
    @pytest.fixture
    def library(self, tmp_path: Path) -> ChangerBench:
        return HumanBench(tmp_path / "library")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return HumanBench(tmp_path / "library").folder


@pytest.fixture
def changer(folder: Path) -> HumanChanger:
    """Two tapes are known, and nobody obeys."""
    changer = HumanChanger(folder.parent / "notes", 2, look_s=0.01)
    changer.eyes = VirtualEyes(folder)
    changer.add(["TP0001L9", "TP0002L9"])
    return changer


@contextmanager
def loading(changer: HumanChanger, slot: int, drive: int) -> Iterator[list[Exception]]:
    """Load in another thread, which must be over at the end; what it raised is in the list."""
    errors: list[Exception] = []

    def load() -> None:
        try:
            changer.load(slot, drive)
        except (ChangerError, NotReady) as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield errors
        thread.join(60)
    finally:
        stuck = thread.is_alive()
        changer.interrupt()
        thread.join(60)
    assert not stuck


def wait_prompt(desk: Desk, holds: Callable[[Prompt], bool]) -> Prompt:
    """Wait for a prompt."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        found = next(filter(holds, desk.open()), None)
        if found is not None:
            return found
        time.sleep(0.005)
    raise AssertionError([each.text for each in desk.open()])


def test_one_prompt_says_what_to_take_out_and_what_to_put_in(folder: Path) -> None:
    changer, player = changer_of(folder, folder.parent / "notes", 2)
    changer.add(["TP0001L9", "TP0002L9"])
    changer.load(0, 1)
    player.obey = lambda prompt: None  # type: ignore[method-assign] # busy with something else
    changer.unload(1, 0)
    assert [each.text for each in changer.desk.open()] == ["take TP0001L9 out of drive1 and put it back on the shelf"]
    with loading(changer, 1, 1):
        prompt = wait_prompt(changer.desk, lambda prompt: prompt.put_in is not None)
        assert prompt.text == "put TP0002L9 into drive1: take TP0001L9 out of it first, for the shelf"
        time.sleep(0.05)  # It is looked at meanwhile, and not threaded again.
        assert changer.desk.open() == [prompt]
        Hands(folder).take_out(1)
        Hands(folder).put_in("TP0002L9", 1)
    assert changer.desk.open() == []
    assert places(changer)[0] == [None, "TP0002L9"]


def test_the_wrong_tape_is_refused_kindly_and_asked_for_again(folder: Path, changer: HumanChanger) -> None:
    eyes = changer.eyes
    assert isinstance(eyes, VirtualEyes)
    with loading(changer, 0, 0):
        wait_prompt(changer.desk, lambda prompt: prompt.text == "put TP0001L9 into drive0")
        Hands(folder).put_in("TP0002L9", 0)
        again = wait_prompt(changer.desk, lambda prompt: bool(prompt.refused))
        assert again.text == (
            "TP0002L9 is in drive0, not TP0001L9: "
            "put TP0001L9 into drive0: take TP0002L9 out of it first, for the shelf"
        )
        Hands(folder).take_out(0)
        Hands(folder).put_in("TP0001L9", 0)
    assert eyes.ejected == ["TP0002L9"]
    assert places(changer) == (["TP0001L9", None], [None, "TP0002L9", None])


def test_the_label_on_the_tape_counts_more_than_the_barcode(folder: Path, changer: HumanChanger) -> None:
    eyes = changer.eyes
    assert isinstance(eyes, VirtualEyes)
    eyes.labels["TP0001L9"] = "TP0007L9"
    with loading(changer, 0, 0) as errors:
        wait_prompt(changer.desk, lambda prompt: True)
        Hands(folder).put_in("TP0001L9", 0)
        wait_prompt(changer.desk, lambda prompt: "TP0007L9 is in drive0" in prompt.refused)
        changer.desk.answer(changer.desk.open()[0].number, Answer.DECLINED)
    assert "says the operator" in str(errors[0])
    assert places(changer)[0] == [None, None]


def test_a_drive_that_tells_nothing_is_believed_when_the_human_speaks(folder: Path, changer: HumanChanger) -> None:
    changer.eyes = VirtualEyes(folder, tells=False, labels={"TP0001L9": "TP0001L9"})
    with loading(changer, 0, 0):
        number = wait_prompt(changer.desk, lambda prompt: True).number
        changer.desk.answer(number, Answer.DONE)
        wait_prompt(changer.desk, lambda prompt: "no tape is in drive0" in prompt.refused)
        Hands(folder).put_in("TP0001L9", 0)
        changer.desk.answer(number, Answer.DONE)
    assert places(changer)[0] == ["TP0001L9", None]


def test_without_eyes_the_word_of_the_human_counts(changer: HumanChanger) -> None:
    changer.eyes = None
    with loading(changer, 1, 0):
        changer.desk.answer(wait_prompt(changer.desk, lambda prompt: True).number, Answer.DONE)
    assert places(changer)[0] == ["TP0002L9", None]


def test_a_wait_ends_when_it_is_interrupted_and_nothing_has_changed(changer: HumanChanger) -> None:
    before = changer.inventory()
    with loading(changer, 0, 0) as errors:
        wait_prompt(changer.desk, lambda prompt: True)
        changer.interrupt()
    assert isinstance(errors[0], NotReady)
    assert changer.inventory() == before
    assert changer.desk.open() == []


def test_a_drive_that_fails_ends_the_wait(changer: HumanChanger) -> None:
    class Blind(VirtualEyes):
        def look(self, drive: int) -> Seen:
            raise DeviceFailed("its mover has died")

    changer.eyes = Blind(Path("/nowhere"))
    with pytest.raises(DeviceFailed, match="mover has died"):
        changer.load(0, 0)
    assert changer.desk.open() == []


def test_notes_outlive_the_process(folder: Path, changer: HumanChanger) -> None:
    changer.desk.on_change = lambda prompts: None
    Hands(folder).put_in("TP0001L9", 0)
    changer.load(0, 0)
    changer.unload(0, 2)
    again = HumanChanger(folder.parent / "notes", 2)
    assert places(again) == ([None, None], [None, "TP0002L9", "TP0001L9"])
    assert again.desk.open() == []
    again.eyes = changer.eyes
    with loading(again, 1, 0):
        prompt = wait_prompt(again.desk, lambda prompt: True)
        assert prompt.take_out == "TP0001L9"
        again.interrupt()


def test_tapes_are_added_once_and_forgotten_when_they_are_on_the_shelf(changer: HumanChanger, folder: Path) -> None:
    assert changer.add(["TP0002L9", "TP0003L9", "TP0003L9"]) == ["TP0003L9"]
    assert places(changer)[1] == ["TP0001L9", "TP0002L9", "TP0003L9", None]
    with pytest.raises(ChangerError, match="capital"):
        changer.add(["tape 1"])
    changer.remove("TP0002L9")
    with pytest.raises(SlotEmpty):
        changer.remove("TP0002L9")
    Hands(folder).put_in("TP0001L9", 0)
    changer.load(0, 0)
    with pytest.raises(ChangerError, match="drive0"):
        changer.remove("TP0001L9")


def test_an_answer_to_nothing_is_said(changer: HumanChanger) -> None:
    with pytest.raises(ChangerError, match="no open prompt 7"):
        changer.desk.answer(7, Answer.DONE)


def test_the_setting_takes_any_drives(tmp_path: Path) -> None:
    folder = HumanBench(tmp_path / "library").folder
    library = LibraryConfig(folder=folder, changer="human")
    check_library(library)
    changer = open_changer(library)
    assert places(changer) == ([None, None], [None])
    with pytest.raises(ValueError, match="nothing"):
        check_library(LibraryConfig(folder=folder, changer="human:me"))


def test_damaged_notes_are_said(tmp_path: Path) -> None:
    (tmp_path / "shelf.json").write_text("{")
    with pytest.raises(DeviceFailed, match=r"shelf\.json"):
        HumanChanger(tmp_path, 1)
