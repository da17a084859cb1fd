"""Bech32 (BIP 173) without its limit on length, as age writes recipients and identities. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_DIGITS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_DIGITS = 6


def encode(prefix: str, data: bytes) -> str:
    """Return the text for some bytes, in lower case; so must `prefix` be."""
    digits = list(_regrouped(data, 8, 5, pad=True))
    sum_ = _sum([*_spread(prefix), *digits, *(0,) * _CHECKSUM_DIGITS]) ^ 1
    checksum = [(sum_ >> 5 * (_CHECKSUM_DIGITS - 1 - place)) & 31 for place in range(_CHECKSUM_DIGITS)]
    return prefix + "1" + "".join(_DIGITS[digit] for digit in [*digits, *checksum])


def decode(text: str) -> tuple[str, bytes]:
    """Return prefix and bytes; the prefix in lower case. Raises ValueError for a text that is mistyped."""
    if text not in (text.lower(), text.upper()):
        raise ValueError("it mixes capital and small letters")
    text = text.lower()
    prefix, one, rest = text.rpartition("1")
    if not one or not prefix or len(rest) < _CHECKSUM_DIGITS:
        raise ValueError("it is too short")
    if not all(33 <= ord(letter) <= 126 for letter in prefix) or not set(rest) <= set(_DIGITS):
        raise ValueError("it has letters that cannot occur")
    digits = [_DIGITS.index(letter) for letter in rest]
    if _sum([*_spread(prefix), *digits]) != 1:
        raise ValueError("its checksum is wrong")
    return prefix, bytes(_regrouped(digits[:-_CHECKSUM_DIGITS], 5, 8, pad=False))


def _spread(prefix: str) -> Iterator[int]:
    """Yield what the checksum takes of the prefix: the upper bits, a zero, the lower bits."""
    yield from (ord(letter) >> 5 for letter in prefix)
    yield 0
    yield from (ord(letter) & 31 for letter in prefix)


def _sum(digits: Iterable[int]) -> int:
    state = 1
    for digit in digits:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ digit
        for place, value in enumerate(_GENERATOR):
            if top >> place & 1:
                state ^= value
    return state


def _regrouped(values: Iterable[int], from_bits: int, to_bits: int, *, pad: bool) -> Iterator[int]:
    """Yield the same bits in groups of another size. Raises ValueError when bits are left over that are not padding."""
    held = held_bits = 0
    for value in values:
        held, held_bits = held << from_bits | value, held_bits + from_bits
        while held_bits >= to_bits:
            held_bits -= to_bits
            yield held >> held_bits
            held &= (1 << held_bits) - 1
    if pad:
        if held_bits:
            yield held << to_bits - held_bits
    elif held_bits >= from_bits or held:
        raise ValueError("it ends with bits that mean nothing")
