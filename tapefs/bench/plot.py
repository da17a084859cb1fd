"""Plots as SVG files, drawn by hand: a plotting library would be a dependency for three pictures. Pure; any thread.

The colours are told apart by people who see few of them, and by brightness in print.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#888888")
_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 70, 56
_STEPS = 5


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers with a name; for bars one per group."""

    name: str
    values: Sequence[float]


def bars(title: str, unit: str, groups: Sequence[str], series: Sequence[Series], most: float) -> str:
    """Return grouped bars; what is higher than `most` is cut and labelled."""
    room = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    width = room * 0.8 / len(series)
    parts = [*_frame(title, unit, most, series)]
    for place, group in enumerate(groups):
        left = _LEFT + place * room + room * 0.1
        for number, each in enumerate(series):
            x, value = left + number * width, each.values[place]
            top = _y(min(value, most), most)
            height = _HEIGHT - _BOTTOM - top
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{width * 0.92:.1f}" height="{height:.1f}" '
                f'fill="{_COLOURS[number]}"/>'
            )
            if value > most:
                parts.append(_text(x + width / 2, top - 3, f"{value:.3g}", "middle", 9))
        parts += _lines(left + room * 0.4, _HEIGHT - _BOTTOM + 16, group)
    return _svg(parts)


def curves(title: str, unit: str, below: str, series: Sequence[Series], most: float) -> str:
    """Return one curve per series over the numbers of its values, from left to right; cut at `most`."""
    parts = [*_frame(title, unit, most, series), _text(_WIDTH / 2, _HEIGHT - 12, below, "middle", 12)]
    for number, each in enumerate(series):
        step = (_WIDTH - _LEFT - _RIGHT) / max(len(each.values) - 1, 1)
        points = " ".join(
            f"{_LEFT + place * step:.1f},{_y(min(value, most), most):.1f}" for place, value in enumerate(each.values)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[number]}" stroke-width="2.5"/>')
    return _svg(parts)


def _frame(title: str, unit: str, most: float, series: Sequence[Series]) -> Iterable[str]:
    yield _text(_LEFT, 22, title, "start", 15)
    x = float(_LEFT)
    for number, each in enumerate(series):
        yield f'<rect x="{x:.1f}" y="36" width="12" height="12" fill="{_COLOURS[number]}"/>'
        yield _text(x + 17, 46, each.name, "start", 12)
        x += 36 + 6.4 * len(each.name)
    for step in range(_STEPS + 1):
        value = most * step / _STEPS
        y = _y(value, most)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#cccccc"/>'
        yield _text(_LEFT - 6, y + 4, f"{value:.3g}{unit}", "end", 11)


def _lines(x: float, y: float, text: str) -> Iterable[str]:
    for number, line in enumerate(text.split("\n")):
        yield _text(x, y + 13 * number, line, "middle", 11)


def _y(value: float, most: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / most)


def _text(x: float, y: float, text: str, anchor: str, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _svg(parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])
