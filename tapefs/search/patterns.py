"""Patterns for names: globs as in the shell, or regular expressions, searched in whole blocks of names.

Pure; usable from any thread. A name is text for a pattern: UTF-8, and each byte that is none a character of its own
(surrogateescape). `ignore_case` makes lower case of pattern and name, character by character.

Most of a block is never looked at as names: what of a pattern lies between two asterisks, its longest literal if that
will do, is searched in the whole block, and only where it is found the name around it is compared.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from tapefs.errors import UsageError

#: Longer ones have no use, and take long to compare.
LONGEST_PATTERN = 4096
#: A literal of one character is in so many names that a search for more is quicker.
_SHORTEST_LITERAL = 2

#: (Ordinal of the name in the block, name); ascending.
Hit = tuple[int, bytes]


class _Piece(NamedTuple):
    """One element of a glob: a literal character, or anything else but an asterisk."""

    #: As a regular expression for text without NULs.
    regex: str
    #: Empty when it is no literal.
    literal: str = ""
    #: Does the regular expression say all of it?
    is_sure: bool = True


class NamePattern:
    """One pattern, ready to search blocks."""

    def __init__(self, pattern: str, *, ignore_case: bool = False, regex: bool = False) -> None:
        """Raises UsageError for a regular expression that is none, or a pattern that no name can match."""
        _check(pattern)
        self._ignore_case = ignore_case
        #: What all names that match begin with.
        self.prefix = b""
        self.matches = _matcher(pattern, ignore_case=ignore_case, regex=regex)
        self._find: Callable[[bytes], Iterator[int]] | None = None
        self._is_sure = False
        #: What is searched in the text of a block that is not ASCII.
        self._text_core: re.Pattern[str] | None = None
        self._is_everything = not regex and set(pattern) == {"*"}
        if not regex:
            runs = _runs(fold(pattern), only_ascii=True) if ignore_case else _runs(pattern)
            self._prepare(runs)
            if not ignore_case:
                self.prefix = os.fsencode("".join(piece.literal for piece in takewhile(_is_literal, runs[0])))

    def hits(self, text: bytes) -> Iterator[Hit]:
        """Yield the names of a block that match; `text` is a NUL, then every name with a NUL behind it."""
        if self._is_everything:
            yield from enumerate(text[1:-1].split(b"\0"))
            return
        searched = text.lower() if self._ignore_case else text
        find = self._find
        if find is None and self._text_core is not None and searched.isascii():
            yield from self._around(text, _by_regex(_as_bytes(self._text_core), searched))
        elif find is not None:
            yield from self._around(text, find(searched))
        elif self._text_core is not None and not self._ignore_case:
            yield from self._around_text(text.decode("utf-8", "surrogateescape"))
        else:
            matches = self.matches
            names = enumerate(text[1:-1].split(b"\0"))
            yield from ((ordinal, name) for ordinal, name in names if matches(name))

    def _prepare(self, runs: list[list[_Piece]]) -> None:
        """Choose what to search for. `runs` are the parts of the glob between asterisks, at least one."""
        literals = [
            (literal, at == 0 and start == 0, at == len(runs) - 1 and start + len(literal) == len(run))
            for at, run in enumerate(runs)
            for start, literal in _literals(run)
        ]
        literal, is_first, is_last = max(literals, key=lambda each: len(each[0]), default=("", False, False))
        if len(literal) >= _SHORTEST_LITERAL:
            # A byte that is no UTF-8 may be part of a character in a name: then it is not that byte.
            is_whole = sum(map(len, runs)) == len(literal) and not _has_stray_bytes(literal)
            needle = b"\0" * is_first + os.fsencode(literal) + b"\0" * is_last
            self._find, self._is_sure = _finder(needle, is_first), is_whole
            return
        run = max(runs, key=len)
        if run:
            at = next(place for place, each in enumerate(runs) if each is run)
            core = "".join(piece.regex for piece in run)
            behind = r"(?=\x00)" if at == len(runs) - 1 else ""
            self._text_core = re.compile((r"\x00" if at == 0 else "") + core + behind)
            self._is_sure = sum(map(bool, runs)) == 1 and all(piece.is_sure for piece in run)

    def _around(self, text: bytes, found: Iterator[int]) -> Iterator[Hit]:
        """Yield the names around places within them, each name once."""
        matches, is_sure = self.matches, self._is_sure
        end = counted = 0
        ordinal = -1
        for inside in found:
            if inside < end:
                continue
            begin = text.rfind(b"\0", 0, inside) + 1
            end = text.index(b"\0", inside)
            name = text[begin:end]
            if is_sure or matches(name):
                ordinal += text.count(b"\0", counted, begin)
                counted = begin
                yield ordinal, name

    def _around_text(self, text: str) -> Iterator[Hit]:
        if self._text_core is None:
            raise AssertionError("there is nothing to search for in text")
        matches, is_sure = self.matches, self._is_sure
        end = counted = 0
        ordinal = -1
        for match in self._text_core.finditer(text):
            inside = match.start() + (text[match.start()] == "\0")
            if inside < end:
                continue
            begin = text.rfind("\0", 0, inside) + 1
            end = text.index("\0", inside)
            name = os.fsencode(text[begin:end])
            if is_sure or matches(name):
                ordinal += text.count("\0", counted, begin)
                counted = begin
                yield ordinal, name


def _is_literal(piece: _Piece) -> bool:
    return bool(piece.literal)


def search_block(patterns: list[NamePattern], text: bytes) -> Iterator[Hit]:
    """Yield the names of a block that match any of the patterns, each once."""
    if len(patterns) == 1:
        yield from patterns[0].hits(text)
        return
    yield from sorted(dict(hit for pattern in patterns for hit in pattern.hits(text)).items())


def path_matcher(pattern: str, *, ignore_case: bool, regex: bool) -> Callable[[bytes], bool]:
    """Return what tells whether a path, with a slash before it, matches; `*` matches slashes too.

    A glob that begins with neither slash nor asterisk may begin to match behind any slash.
    """
    _check(pattern)
    if not regex and not pattern.startswith(("/", "*")):
        pattern = "*/" + pattern
    return _matcher(pattern, ignore_case=ignore_case, regex=regex)


def last_names(pattern: str, *, ignore_case: bool, regex: bool) -> NamePattern:
    """Return a pattern that the last name of every path that matches has: to look for candidates."""
    tail = pattern.rpartition("/")[2]
    if regex or not tail or "[" in pattern:
        tail = "*"  # A slash may stand in brackets.
    elif set(tail) & set("*?"):
        # What stands for any character may stand for a slash.
        tail = "*" + re.split(r"[*?]", tail)[-1]
    return NamePattern(tail, ignore_case=ignore_case)


def fold(text: str) -> str:
    """Return the text in lower case, character by character; none beyond ASCII becomes one of ASCII."""
    return text.lower() if text.isascii() else "".join(map(_folded, text))


@lru_cache(maxsize=4096)
def _folded(char: str) -> str:
    lower = char.lower()
    return char if not char.isascii() and (lower[0].isascii() or len(lower) > 1) else lower


def _check(pattern: str) -> None:
    if not pattern or "\0" in pattern:
        raise UsageError("a pattern is not empty, and holds no NUL")
    if len(pattern) > LONGEST_PATTERN:
        raise UsageError(f"a pattern has at most {LONGEST_PATTERN} characters")
    try:
        os.fsencode(pattern)
    except UnicodeEncodeError as error:
        raise UsageError(f"the pattern is no text: {error.reason}") from error


def _matcher(pattern: str, *, ignore_case: bool, regex: bool) -> Callable[[bytes], bool]:
    """Return what compares one whole name or path; a regular expression may match any part of it."""
    try:
        if regex:
            match = re.compile(pattern, re.IGNORECASE if ignore_case else 0).search
            return lambda name: match(name.decode("utf-8", "surrogateescape")) is not None
        match = re.compile(fnmatch.translate(fold(pattern) if ignore_case else pattern)).match
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is no pattern: {error}") from error
    if ignore_case:
        return lambda name: match(fold(name.decode("utf-8", "surrogateescape"))) is not None
    return lambda name: match(name.decode("utf-8", "surrogateescape")) is not None


# -- globs -----------------------------------------------------------------------------------------------------------


def _runs(pattern: str, *, only_ascii: bool = False) -> list[list[_Piece]]:
    """Return what stands between the asterisks, as fnmatch understands it; runs at the ends may be empty.

    With `only_ascii` other characters are any character.
    """
    runs: list[list[_Piece]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            runs.append([])
        elif char == "?":
            runs[-1].append(_Piece(r"[^\x00]"))
        elif char == "[" and (end := _class_end(pattern, at)):
            runs[-1].append(_class(pattern[at - 1 : end + 1], only_ascii=only_ascii))
            at = end + 1
        elif only_ascii and not char.isascii():
            runs[-1].append(_Piece(r"[^\x00]", is_sure=False))
        else:
            runs[-1].append(_Piece(re.escape(char), char))
    return runs


def _class(text: str, *, only_ascii: bool) -> _Piece:
    if not text.isascii() and only_ascii:
        return _Piece(r"[^\x00]", is_sure=False)
    translated = fnmatch.translate(text)
    regex = translated[translated.index(":") + 1 : translated.rindex(")")]
    if regex == ".":
        regex = r"[^\x00]"
    elif regex.startswith("[^"):
        # Not by looking ahead: a search for a plain set of characters is five times as quick.
        regex = regex[:-1] + r"\x00]"
    return _Piece(regex, is_sure=text.isascii())


def _class_end(pattern: str, start: int) -> int:
    """Return where the class ends whose first character is at `start`; 0 where there is none."""
    at = start + (pattern[start : start + 1] == "!")
    at += pattern[at : at + 1] == "]"
    return max(0, pattern.find("]", at))


def _literals(run: list[_Piece]) -> Iterator[tuple[int, str]]:
    """Yield the literal stretches of a run, with the places where they begin."""
    start, literal = 0, ""
    for at, piece in enumerate(run):
        if not piece.literal:
            if literal:
                yield start, literal
            literal = ""
            continue
        start = start if literal else at
        literal += piece.literal
    if literal:
        yield start, literal


def _has_stray_bytes(text: str) -> bool:
    return any("\udc80" <= char <= "\udcff" for char in text)


def _finder(needle: bytes, begins_name: bool) -> Callable[[bytes], Iterator[int]]:
    """Return a search for all places of some bytes; of each a place within the name."""
    skip = int(begins_name)

    def find(text: bytes) -> Iterator[int]:
        at = text.find(needle)
        while at >= 0:
            yield at + skip
            # The last byte may be the NUL with which the next one begins.
            at = text.find(needle, at + max(1, len(needle) - 1))

    return find


def _by_regex(core: re.Pattern[bytes], text: bytes) -> Iterator[int]:
    for match in core.finditer(text):
        start = match.start()
        yield start + (text[start] == 0)


@lru_cache(maxsize=64)
def _as_bytes(core: re.Pattern[str]) -> re.Pattern[bytes]:
    """Return the same for bytes; good for text that is ASCII."""
    return re.compile(os.fsencode(core.pattern))
