"""`tapefs plan`: one line of JSON for good input, one line of error for bad."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

LTO8 = {"kind": "lto", "generation": 8, "head": {"block": 0}}
LINEAR = {"kind": "linear", "length": 1_000_000, "u_turn": 500, "head": 1_000_000}


@pytest.fixture
def ask(tapefs, monkeypatch):
    def call(task, code=0):
        text = task if isinstance(task, bytes) else json.dumps(task).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        outcome = tapefs("plan")
        assert outcome.code == code, outcome.err
        return json.loads(outcome.out) if code == 0 else outcome.one_line()

    return call


def linear(*wishes, **model):
    return {
        "model": LINEAR | model,
        "requests": [{"id": name, "start": start, "length": length, **more} for name, start, length, more in wishes],
    }


def lto(*wishes):
    return {
        "model": LTO8,
        "requests": [{"id": name, "block": block, "blocks": blocks} for name, block, blocks in wishes],
    }


def test_the_example_of_the_documentation(ask):
    answer = ask(linear(("a", 10, 200, {"weight": 1}), ("b", 999_000, 200, {})))
    assert answer["order"] == ["b", "a"]
    assert answer["predicted"] == {
        "mean": 501_895,
        "sum": 1_003_790,
        "end": 1_002_090,
        "times": [1700, 1_002_090],
        "method": "exact",
        "by_position": {"mean": 1_500_185, "sum": 3_000_370},
    }


def test_the_head_is_at_the_right_end_unless_it_is_said(ask):
    model = {"kind": "linear", "length": 1000}
    wishes = [{"id": 1, "start": 100, "length": 50}]
    assert ask({"model": model, "requests": wishes})["predicted"]["sum"] == 950
    assert ask({"model": model | {"head": 0}, "requests": wishes})["predicted"]["sum"] == 150


def test_weights_decide(ask):
    wishes = [("far", 10, 5, {"weight": 300}), ("near", 900_000, 5, {})]
    assert ask(linear(*wishes, length=1_000_000, u_turn=10**6))["order"] == ["far", "near"]


def test_equal_requests_stay_several(ask):
    answer = ask(linear(("a", 10, 5, {}), ("b", 10, 5, {}), (7, 10, 5, {"weight": 2})))
    assert sorted(map(str, answer["order"])) == ["7", "a", "b"]
    assert len(set(answer["predicted"]["times"])) == 1


def test_lto(ask):
    """Back on the next wrap beats the order of the blocks; the head may stand where one begins."""
    wrap = 12 * 10**12 // 208 // (256 * 1024)
    out, back = ("out", wrap // 2, 4000), ("back", 3 * wrap - 2 * wrap // 5, 4000)
    answer = ask(lto(out, back, ("begin", 0, 4000)))
    assert answer["order"][0] == "begin"
    assert answer["predicted"]["times_s"][0] == pytest.approx(4000 * 256 * 1024 / 360e6)
    assert answer["predicted"]["mean_s"] <= answer["predicted"]["by_position"]["mean_s"]
    task = lto(out, back)
    task["model"] = LTO8 | {"head": {"block": back[1]}}
    assert ask(task)["order"] == ["back", "out"]


def test_nothing_asked(ask):
    assert ask({"model": LINEAR, "requests": []})["order"] == []


BAD = [
    (b"", "stdin"),
    (b"hello", "malformed"),
    (b"\xff\xfe", "stdin"),
    (b"[]", "stdin"),
    (b"[" * 100_000, "stdin"),
    ({}, "model"),
    ({"model": LINEAR}, "requests"),
    ({"model": LINEAR, "requests": [], "more": 1}, "more"),
    ({"model": {"kind": "spiral"}, "requests": []}, "spiral"),
    ({"model": {"length": 5}, "requests": []}, "kind"),
    ({"model": {"kind": "lto", "generation": 4}, "requests": []}, "generation 4"),
    ({"model": LTO8 | {"head": {"block": -1}}, "requests": []}, "head.block"),
    ({"model": LTO8 | {"head": {"block": 45_776_368}}, "requests": []}, "the head is behind the last block"),
    (lto(("a", 45_776_367, 1)), "'a' is behind the last block, 45,776,367"),
    (lto(("a", 1.5, 1)), "block"),
    (lto(("a", 1, -1)), "blocks"),
    (lto(("a", 1, 1), ("a", 3, 1)), "two requests have the id 'a'"),
    ({"model": LTO8, "requests": [{"id": "a", "start": 1, "length": 1}]}, "requests"),
    (linear(length=0), "length"),
    (linear(u_turn=-1), "u_turn"),
    (linear(turn=1), "turn"),
    (linear(head=1_000_001), "head"),
    (linear(head="left"), "head"),
    (linear(("a", 5, -1, {})), "length"),
    (linear(("a", -5, 1, {})), "start"),
    (linear(("a", 5, 1, {"weight": 0})), "weight"),
    (linear(("a", 5, 1, {"weight": None})), "weight"),
    (linear(("a", 5, 1, {"colour": "red"})), "colour"),
    (linear(("a", 999_999, 2, {})), "'a' ends behind"),
    (linear(("a", 5, 1, {}), ("a", 50, 1, {})), "two requests have the id 'a'"),
    (linear(("left", 5, 10, {}), ("right", 14, 10, {})), "'left' and 'right' overlap"),
    (linear((None, 5, 10, {})), "id"),
    (b'{"model":{"kind":"linear","length":1e999},"requests":[]}', "length"),
    (b'{"model":{"kind":"linear","length":10},"requests":[{"id":"a","start":NaN,"length":1}]}', "malformed"),
    (
        b'{"model":{"kind":"linear","length":10},"requests":[{"id":"a","start":1' + b"0" * 400 + b',"length":1}]}',
        "start",
    ),
]


@pytest.mark.parametrize(("task", "word"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_bad_input_is_refused_in_one_line(ask, task, word):
    assert word in ask(task, code=2)


def test_too_much_is_refused(ask):
    many = [{"id": number, "start": number, "length": 1} for number in range(100_001)]
    assert "100,001" in ask({"model": LINEAR, "requests": many}, code=2)
    assert "64 MiB" in ask(b" " * (64 * 1024**2 + 1), code=2)


def test_few_requests_do_not_pay_for_numpy():
    """It takes as long to import as all the rest of the command."""
    program = (
        "import sys\nfrom tapefs.cli import run\ncode = run(['plan'])\nsys.exit(code or ('numpy' in sys.modules and 3))"
    )
    task = json.dumps(linear(("a", 5, 1, {}), ("b", 50, 1, {}))).encode()
    assert subprocess.run([sys.executable, "-c", program], input=task, stdout=subprocess.DEVNULL).returncode == 0
