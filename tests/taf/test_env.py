"""A `.env` of TAF's: what is understood, what is named, and that no secret comes out of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tapefs.cli import run
from tapefs.errors import HomeError, UsageError
from tapefs.home import open_home
from tapefs.notice_kinds import FLAGS
from tapefs.taf.env import parse, understand
from tests.sidecar.rig import make_home, running

SECRET = "canary-of-the-gateway"
FULL = f"""\
# TAF
APP_NAME="backup"
export COMPRESSION_METHOD=pgzip
COMPRESSION_LEVEL=6   # good
PGZIP_THREADS=3
ZSTD_THREADS=5
MAX_FILE_SIZE=12884901888
DEFAULT_RETENTION_MONTHS=12
WEB_HOST=127.0.0.1
WEB_PORT='8081'
DINGTALK_API_URL=http://localhost:5555
DINGTALK_API_KEY="{SECRET}"
DINGTALK_DEFAULT_PHONE=138
LOG_LEVEL=debug
TAPE_DEVICE_PATH=/dev/nst0
DB_PASSWORD=canary-of-the-database
"""


def test_lines() -> None:
    text = 'A=1\n\n#B=2\nexport C = x y # no\nD="a # \\"b\\""\nE=\'$x\'\nF=\nG=a#b\nH=#nothing\nA=2\n'
    assert parse(text) == {"A": "2", "C": "x y", "D": 'a # "b"', "E": "$x", "F": "", "G": "a#b", "H": ""}


@pytest.mark.parametrize("line", ["nothing", "1A=2", 'A="open', "A='open", "=x"])
def test_what_is_no_line_is_told_by_its_number(line: str) -> None:
    with pytest.raises(UsageError, match="line 2"):
        parse(f"A=1\n{line}\n")


def test_what_means_something() -> None:
    found = understand(FULL)
    assert found.sections == {
        "taf": {"codec": "pgzip", "level": 6, "retention_days": 360, "log_level": "DEBUG"},
        "backup": {"segment_bytes": 12884901888, "threads": 3},
        "http": {"listen": "127.0.0.1:8081"},
    }
    assert found.gateway is not None
    assert found.gateway["phones"] == ["138"]
    assert "events" in found.gateway
    assert found.device == "/dev/nst0"
    assert found.unknown == ("APP_NAME", "DB_PASSWORD", "ZSTD_THREADS")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPRESSION_METHOD", "rar"), ("COMPRESSION_LEVEL", "x"), ("COMPRESSION_LEVEL", "99"), ("WEB_PORT", "0"),
        ("WEB_HOST", "a b"), ("MAX_FILE_SIZE", "1"), ("LOG_LEVEL", "loud"), ("DEFAULT_RETENTION_MONTHS", "-1"),
        ("DINGTALK_API_URL", "http://ada:canary@x"), ("COMPRESSION_THREADS", "4.5"), ("DEFAULT_BLOCK_SIZE", "1"),
        ("x", '1\nDINGTALK_API_URL=http://x\nNOTIFICATION_EVENTS={"notify_backup_success": "canary"}'),
        ("x", '1\nDINGTALK_API_URL=http://x\nNOTIFICATION_EVENTS=["canary"]'),
        ("x", '1\nDINGTALK_API_URL=http://x\nNOTIFICATION_EVENTS={"notify_nothing": true}'),
    ],
)  # fmt: skip
def test_a_value_without_sense_is_told_by_its_name_only(name: str, value: str) -> None:
    with pytest.raises(UsageError, match="NOTIFICATION_EVENTS" if name == "x" else name) as caught:
        understand(f"{name}={value}\n")
    assert "canary" not in str(caught.value)


GATEWAY = "DINGTALK_API_URL=http://localhost:5555\nDINGTALK_DEFAULT_PHONE=138\n"


def _events(text: str) -> object:
    gateway = understand(GATEWAY + text).gateway
    assert gateway is not None
    return gateway["events"]


def test_flags_say_what_the_gateway_gets() -> None:
    """Those that are not named are on; they are kinds that the settings take."""
    every = _events("")
    assert isinstance(every, list)
    assert {"backup.started", "backup.failed", "tape.wanted", "restore.succeeded"} <= set(every)
    assert "backup.queued" not in every
    some = _events('NOTIFICATION_EVENTS={"notify_backup_started": false, "notify_tape_change": false}')
    assert isinstance(some, list)
    assert set(every) - set(some) == {"backup.started", "tape.wanted", "tape.renewed"}
    none = json.dumps(dict.fromkeys(FLAGS, False))
    assert _events(f"NOTIFICATION_EVENTS='{none}'") == ["test"]
    quoted = json.dumps(none)
    assert _events(f"NOTIFICATION_EVENTS={quoted}") == ["test"]
    assert understand("NOTIFICATION_EVENTS={}").unknown == ("NOTIFICATION_EVENTS",)


def test_the_command_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".env"
    path.write_text(FULL)
    assert run(["taf", "settings", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "canary" not in out + err
    assert len(err.splitlines()) == 1
    assert err.rstrip().endswith("these mean nothing here: APP_NAME, DB_PASSWORD, ZSTD_THREADS")
    shown = tomllib.loads(out)
    assert shown["backup"] == {"segment_bytes": 12884901888, "threads": 3}
    assert shown["notify"][0]["url"] == "http://localhost:5555"
    assert run(["taf", "settings", str(tmp_path / "missing")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_it_is_read_at_every_start_and_counts_less_than_ours(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    settings = home.path / "tapefs.toml"
    plain = settings.read_text()
    settings.write_text(plain.replace("[backup]\n", "[backup]\nthreads = 7\n") + '\n[taf]\nenv = "../.env"\n')
    (tmp_path / ".env").write_text(FULL)
    found = open_home(home.path).settings
    assert (found.backup.threads, found.backup.segment_bytes) == (7, 12884901888)
    assert (found.taf.codec, found.taf.level, found.taf.retention_days) == ("pgzip", 6, 360)
    assert found.notify[0].secret == SECRET
    (tmp_path / ".env").write_text("COMPRESSION_LEVEL=canary\n")
    with pytest.raises(HomeError, match="COMPRESSION_LEVEL must be") as caught:
        open_home(home.path)
    assert "canary" not in str(caught.value)
    (tmp_path / ".env").unlink()
    with pytest.raises(HomeError, match="cannot read"):
        open_home(home.path)


def test_a_sidecar_with_it(tmp_path: Path) -> None:
    """One warning names what means nothing; tasks have what it says; the log has no secret."""
    home = make_home(tmp_path / "home")
    with (home.path / "tapefs.toml").open("a") as file:
        file.write('\n[taf]\nenv = ".env"\n')
    (home.path / ".env").write_text(FULL)
    with running(open_home(home.path)) as rig:
        body = {"task_name": "by TAF", "source_paths": [str(tmp_path)]}
        number = rig.unix("POST", "/api/backup/tasks", body).body["task_id"]
        job = rig.job(number)
        assert (job["codec"], job["level"], job["retention_days"]) == ("pgzip", 6, 360)
    log = (home.path / "stderr.log").read_text()
    warnings = [line for line in log.splitlines() if "mean nothing here" in line]
    assert len(warnings) == 1
    assert "DB_PASSWORD" in warnings[0]
    assert "canary" not in log
