"""The desk where prompts for the human lie, and where the answers come back. Any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from drivers.errors import ChangerError, NotReady


class Answer(Enum):
    """What a human can say to a prompt."""

    #: Done: look now. Needed only where the drive does not tell by itself.
    DONE = "done"
    #: It cannot be done now: the tape is not here.
    DECLINED = "declined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Something that a human is to do at a drive."""

    number: int
    drive: int
    #: Tape that is to be taken out first, ejected already; None: none is known to be in the drive.
    take_out: str | None
    #: Tape that is to be put in; None: the drive is to stay empty.
    put_in: str | None
    #: Why what was put in before was refused; "" when nothing was.
    refused: str = ""
    since_ns: int

    @property
    def text(self) -> str:
        """What to do, in sentences."""
        place = f"drive{self.drive}"
        if self.put_in is None:
            return f"{self.refused}take {self.take_out} out of {place} and put it back on the shelf"
        if self.take_out is None:
            return f"{self.refused}put {self.put_in} into {place}"
        return f"{self.refused}put {self.put_in} into {place}: take {self.take_out} out of it first, for the shelf"


class Desk:
    """Open prompts, at most one for each drive."""

    def __init__(self, on_change: Callable[[list[Prompt]], None] | None = None) -> None:
        """`on_change` is told all open prompts, in the thread that has changed them, after every change."""
        self.on_change = on_change
        self._prompts: dict[int, Prompt] = {}
        self._answers: dict[int, Answer] = {}
        self._next = 1
        self._interrupted = False
        self._changed = threading.Condition()

    def open(self) -> list[Prompt]:
        """Return what a human is to do, oldest first."""
        with self._changed:
            return sorted(self._prompts.values(), key=lambda prompt: prompt.number)

    def answer(self, number: int, answer: Answer) -> None:
        """Take the human's word. Raises ChangerError when there is no such prompt (any more)."""
        with self._changed:
            if all(prompt.number != number for prompt in self._prompts.values()):
                raise ChangerError(f"there is no open prompt {number}: see `tapefs prompts`")
            self._answers[number] = answer
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Have the wait that is under way, or the next one if it has been announced, end with NotReady."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    # -- for the changer ---------------------------------------------------------------------------------------------

    def ask(self, drive: int, *, take_out: str | None, put_in: str | None) -> Prompt:
        """Put a prompt on the desk, in place of an older one of that drive."""
        with self._changed:
            prompt = Prompt(number=self._next, drive=drive, take_out=take_out, put_in=put_in, since_ns=time.time_ns())
            self._next += 1
            self._prompts[drive] = prompt
        self._tell()
        return prompt

    def ask_again(self, prompt: Prompt, *, take_out: str | None, refused: str) -> Prompt:
        """Change what a prompt says; its number stays."""
        changed = replace(prompt, take_out=take_out, refused=refused)
        if changed == prompt:
            return prompt
        with self._changed:
            self._prompts[prompt.drive] = changed
        self._tell()
        return changed

    def over(self, drive: int) -> None:
        """Take away the prompt of a drive, if there is one."""
        with self._changed:
            prompt = self._prompts.pop(drive, None)
            if prompt is not None:
                self._answers.pop(prompt.number, None)
        if prompt is not None:
            self._tell()

    def begin_wait(self) -> None:
        """Forget interruptions of earlier waits."""
        with self._changed:
            self._interrupted = False

    def wait_answer(self, prompt: Prompt, timeout_s: float) -> Answer | None:
        """Wait for the human's word, None when none came in time. Raises NotReady when interrupted."""
        with self._changed:
            self._changed.wait_for(lambda: self._interrupted or prompt.number in self._answers, timeout_s)
            if self._interrupted:
                raise NotReady(f"nobody waits for {prompt.put_in} in drive{prompt.drive} any more")
            return self._answers.pop(prompt.number, None)

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change(self.open())
