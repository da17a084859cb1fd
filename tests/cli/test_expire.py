"""`tapefs expire`: tells first, and lets go when told to."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tapefs.cli import group
from tapefs.retention.expire import verdicts_of
from tests.cli.test_job import done, refused, run


@pytest.fixture
def tree(home, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content")
    return tmp_path / "tree"


def test_a_dry_run_changes_nothing_and_apply_does(home, tree):
    number = done("job", "create", str(tree), "--name", "docs", "--retention-days", "9")
    first, second = (done("job", "run", number).splitlines()[-1] for _ in range(2))
    code, out, err = run("expire", first)
    assert code == 0
    assert "it was named" in out
    assert "it is the newest complete set of its job" in out
    assert err == "expire: 1 of 2 sets may go; --apply lets them go"
    assert home.index(first).exists()
    assert {each["set_id"]: each["why"] for each in json.loads(done("expire", "--json"))} == {
        first: "young",
        second: "newest",
    }
    code, out, err = run("expire", "--apply")
    assert "gone" not in out
    assert err.startswith("expire: 0 of 2 sets have gone")
    applied = json.loads(done("expire", first[:8], "--apply", "--json"))
    assert {each["set_id"]: each["expired"] for each in applied} == {first: True, second: False}
    assert not home.index(first).exists()
    assert [each["set_id"] for each in json.loads(done("sets", "--json"))] == [second]
    states = {each["set_id"]: each["state"] for each in json.loads(done("sets", "--all", "--json"))}
    assert states == {first: "expired", second: "complete"}
    assert "is expired" in refused("ls", first)[1]
    assert "no set or job" in refused("expire", "nothing")[1]


def test_a_set_that_begins_meanwhile_is_told_too(home, tree, monkeypatch):
    number = done("job", "create", str(tree), "--name", "docs")
    first = done("job", "run", number).splitlines()[-1]
    later = []

    def after_another(*arguments):
        later.append(done("job", "run", number).splitlines()[-1])
        return verdicts_of(*arguments)

    monkeypatch.setattr("tapefs.cli.expire.verdicts_of", after_another)
    told = CliRunner().invoke(group, ["expire"], catch_exceptions=False).output
    assert first[:8] in told
    assert later[0][:8] in told
