"""Every call of TAF's that is documented or shipped and has a meaning here, over a real socket, with good and bad
input.

The tables are those of TAF's README and of what it ships: method, path, spelling. What is in neither table and yet
served, or in a table and not served, fails the first test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from sidecar.http.app import calls_of
from sidecar.service import Service
from tapefs.home import open_home
from tests.sidecar.http.test_calls import Parts
from tests.sidecar.rig import Answer, Rig, make_home, running, wait_until

NOTHING: dict[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """One call: how it goes well, and how it does not."""

    method: str
    path: str
    #: The same call by other names.
    also: tuple[str, ...] = ()
    query: str = ""
    body: Any = None
    status: int = 200
    #: What the answer has at least; empty: it is an array, or the fields are checked elsewhere.
    fields: str = ""
    #: What goes wrong: path (else the same), query, body, and the status then.
    bad: tuple[tuple[str, str, Any, int], ...] = field(default=())


BAD_PAGE = ("", "?limit=x", None, 422)
TAPE = "tape_id label status media_type generation serial_number location capacity_bytes used_bytes"
SETS = ("/api/recovery/sets", "/api/recovery/backup-sets")
NO_SET = "00000000-0000-0000-0000-000000000000"
STATS = "thread_count data_sets_read data_sets_written read_retries write_retries unrecovered_read_errors"


def of_sets(tail: str) -> tuple[str, tuple[str, ...]]:
    return f"{SETS[0]}/{{set}}{tail}", (f"{SETS[1]}/{{set}}{tail}",)


#: The calls that only look.
LOOKING = [
    Case("GET", "/api/backup/tasks", query="?limit=1", bad=(BAD_PAGE, ("", "?status=odd", None, 422))),
    Case("GET", "/api/backup/tasks/{task}", fields="task_id task_name stage_steps", bad=(
        ("/api/backup/tasks/999", "", None, 404), ("/api/backup/tasks/x", "", None, 422))),
    Case("GET", "/api/backup/tasks/{task}/status", bad=(
        ("/api/backup/tasks/999/status", "", None, 404), ("/api/backup/tasks/x/status", "", None, 422)),
        fields="id task_name task_type status progress_percent total_files total_bytes processed_files processed_bytes "
        "compressed_bytes compression_ratio scan_status started_at completed_at error_message result_summary "
        "source_paths tape_device tape_id description current_compression_progress"),
    Case("GET", "/api/backup/templates", bad=(BAD_PAGE,)),
    Case("GET", "/api/backup/statistics", fields="total_tasks completed_tasks failed_tasks running_tasks pending_tasks "
        "success_rate total_data_backed_up compression_ratio average_task_duration recent_24h"),
    Case("GET", "/api/backup/backup-sets", fields="backup_sets total limit offset", bad=(
        BAD_PAGE, ("", "?backup_group=2026", None, 422))),
    Case("GET", "/api/backup/settings/background-copy", fields="enabled"),
    Case("GET", SETS[0], SETS[1:], fields="backup_sets", bad=(
        BAD_PAGE, ("", "?date_from=soon", None, 422), ("", "?backup_group=13", None, 422))),
    Case("GET", *of_sets("/files"), query="?limit=2", fields="files total limit offset has_more", bad=(
        BAD_PAGE, (f"{SETS[0]}/{NO_SET}/files", "", None, 404))),
    Case("GET", *of_sets("/top-level"), fields="items", bad=(BAD_PAGE, (f"{SETS[0]}/x/top-level", "", None, 404))),
    Case("GET", *of_sets("/directory"), query="?path={source}", fields="items", bad=(
        ("", "?path=/nowhere", None, 404), (f"{SETS[1]}/x/directory", "", None, 404))),
    Case("GET", *of_sets("/groups"), fields="backup_groups", bad=((f"{SETS[0]}/x/groups", "", None, 404),)),
    Case("GET", "/api/recovery/backup-groups", fields="backup_groups"),
    Case("GET", "/api/tape/list", fields="success tapes count", bad=(BAD_PAGE,)),
    Case("GET", "/api/tape/show/{tape}", fields="success tape"),
    Case("GET", "/api/tape/check/{tape}", fields="exists tape_id label status is_expired expiry_date"),
    Case("GET", "/api/tape/inventory", fields="total_tapes available_tapes in_use_tapes full_tapes expired_tapes "
        "error_tapes excellent_tapes good_tapes warning_tapes critical_tapes total_capacity_bytes total_used_bytes "
        "total_available_bytes usage_percent"),
    Case("GET", "/api/tape/current", fields="tape_id label status capacity_bytes used_bytes free_bytes usage_percent "
        "created_date expiry_date location scsi_info", bad=(("", "?tape_id=none", None, 404),)),
    Case("GET", "/api/tape/history", fields="success history count", bad=(BAD_PAGE,)),
    Case("GET", "/api/tape/read-label", ("/api/tape/test-read-label",), fields="success message metadata", bad=(
        ("", "?tape_id=none", None, 404),)),
    Case("GET", "/api/tape/operations/check-format", fields="success formatted metadata message", bad=(
        ("", "?tape_id=none", None, 404),)),
    Case("GET", "/api/tape/health", fields="healthy health_score usage_stats", bad=(("", "?tape_id=none", None, 404),)),
    Case("GET", "/api/tape/usage", fields="success usage_stats", bad=(("", "?tape_id=none", None, 404),)),
    Case("GET", "/api/tape/devices", fields="devices cached"),
    Case("GET", "/api/tape/generate-uuid", fields="success message uuid"),
    *(Case("GET", f"/api/tape/ibm/{what}", fields=f"success drive {more}", bad=(("", "?drive=none", None, 404),))
      for what, more in (("alerts", "alerts"), ("performance", "performance"), ("usage", "usage"),
                         ("temperature", "temperature"), ("serial", "serial"), ("firmware", "firmware"))),
    *(Case(method, f"/api/tape/{path}", status=501, fields="detail") for method, path in (
        ("POST", "ibm/self-test"), ("POST", "ibm/encryption/enable"), ("POST", "ibm/encryption/disable"),
        ("POST", "ibm/worm/enable"), ("POST", "ibm/worm/disable"), ("GET", "ibm/position"), ("GET", "ibm/sense"),
        ("POST", "ibm/log-sense"), ("POST", "ibm/mode-sense"), ("POST", "ibm/inquiry-vpd"),
        ("POST", "operations/rewind"), ("POST", "operations/space"))),
]  # fmt: skip

SYSTEM = [
    Case("GET", "/api/system/config", fields="default_retention_months auto_erase_expired monthly_backup_cron "
        "dingtalk_api_url dingtalk_default_phone scheduler_enabled compression_level max_file_size "
        "enable_tape_format_before_full"),
    Case("PUT", "/api/system/config", body={"retention_months": 6}, fields="success message", bad=(
        ("", "", {"retention_months": 7}, 409), ("", "", {"retention_months": "6"}, 422))),
    Case("GET", "/api/system/env-config", fields="success config"),
    Case("PUT", "/api/system/env-config", body={"log_level": "INFO", "itdt_path": None}, fields="success message", bad=(
        ("", "", {"db_password": "x"}, 409), ("", "", {"web_port": "x"}, 422), ("", "", [], 422))),
    Case("GET", "/api/system/compression", fields="compression_method sevenzip_path compression_threads "
        "compression_command_threads compression_level compress_directly_to_tape pgzip_block_size pgzip_threads "
        "zstd_threads available_methods default_sevenzip_paths"),
    Case("PUT", "/api/system/compression", body={"compression_method": "zstd"}, fields="success message", bad=(
        ("", "", {"compression_method": "tar"}, 409), ("", "", {"compression_level": "9"}, 422))),
    Case("GET", "/api/system/compression/check-sevenzip", query="?path=/nowhere/7z", fields="success message"),
    Case("GET", "/api/system/tape/config", fields="success config status"),
    Case("PUT", "/api/system/tape/config", body={"default_block_size": 262144}, fields="success message", bad=(
        ("", "", {"tape_device_path": "/dev/nst9"}, 409), ("", "", {"default_block_size": "x"}, 422))),
    Case("POST", "/api/system/tape/test", body={"tape_device_path": "/dev/nst9"}, fields="success message", bad=(
        ("", "", {"tape_device_path": 1}, 422),)),
    Case("GET", "/api/system/tape/scan", fields="success devices count message", bad=(
        ("", "?force_rescan=perhaps", None, 422),)),
    Case("GET", "/api/system/tape/history", fields="success history count", bad=(BAD_PAGE,)),
    Case("GET", "/api/system/file-system/drives", fields="drives"),
    Case("GET", "/api/system/file-system/list", query="?path={source}", fields="current_path items parent_path", bad=(
        ("", "", None, 422), ("", "?path=/etc", None, 403), ("", "?path={source}/../x", None, 422),
        ("", "?path={source}/none", None, 404), ("", "?path={source}/link", None, 403),
        ("", "?path={source}&limit=0", None, 422))),
]  # fmt: skip

NEW_TAPE = {"tape_id": "NEW1", "label": "NEW1"}
#: The calls that change something, in an order in which each of them has what it needs.
CHANGING = [
    Case("POST", "/api/backup/settings/background-copy", body={"enabled": False}, fields="enabled", bad=(
        ("", "", {"enabled": True}, 409), ("", "", {"enabled": 3}, 422), ("", "", NOTHING, 422))),
    Case("POST", "/api/tape/create", body=NEW_TAPE, status=202, bad=(
        ("", "", {"label": "X1"}, 422), ("", "", NEW_TAPE | {"label": "a/b"}, 422),
        ("", "", NEW_TAPE | {"generation": "9"}, 422), ("", "", {"tape_id": "X", "label": "{tape}"}, 409),
        ("", "", {"tape_id": "NONE", "label": "NONE", "format_tape": False}, 409)),
        fields="success message tape_id label formatted updated task poll"),
    Case("PUT", "/api/tape/update/{tape}", body={"notes": "x"}, fields="success message tape_id formatted", bad=(
        ("/api/tape/update/none", "", NOTHING, 404), ("", "", {"format_tape": 1}, 422),
        ("", "", {"label": "other"}, 409), ("", "", {"format_tape": True}, 409))),
    Case("POST", "/api/tape/write-label", body={"tape_id": "{blank}", "label": "LABELLED"}, status=202, bad=(
        ("", "", {"tape_id": "none", "label": "X"}, 404), ("", "", {"tape_id": "{tape}", "label": "X"}, 409),
        ("", "", {"tape_id": "{blank}", "label": "\n"}, 422), ("", "", {"label": "X"}, 422)),
        fields="success message task poll"),
    Case("POST", "/api/tape/operations/load", query="?tape_id={tape}", status=202, fields="success message task", bad=(
        ("", "", None, 422), ("", "?tape_id=none", None, 404))),
    Case("POST", "/api/tape/format", body={"tape_id": "LABELLED", "identity": "LABELLED"}, status=202,
        fields="success message task", bad=(
        ("", "", {"tape_id": "{tape}"}, 409), ("", "", {"tape_id": "{tape}", "identity": "{tape}"}, 409),
        ("", "", {"tape_id": "none"}, 404), ("", "", {"force": "x"}, 422))),
    Case("POST", "/api/tape/operations/format", body={"tape_id": "LABELLED", "identity": "LABELLED"}, status=202,
        fields="success message task", bad=(
        ("", "", {"force": False}, 409), ("", "", {"tape_id": "{tape}", "identity": "{tape}", "force": True}, 409))),
    Case("POST", "/api/tape/erase", query="?tape_id=LABELLED", status=202, fields="success message task", bad=(
        ("", "", None, 422), ("", "?tape_id={tape}", None, 409), ("", "?tape_id=none", None, 404),
        ("", "?tape_id=LABELLED&long=perhaps", None, 422))),
    Case("POST", "/api/tape/operations/erase", query="?tape_id=NEW1", status=202, fields="success message task", bad=(
        ("", "", None, 422), ("", "?tape_id={tape}&force=true", None, 409))),
    Case("POST", "/api/tape/operations/unload", status=202, fields="success message task poll", bad=(
        ("", "?tape_id=none", None, 404),)),
    Case("DELETE", "/api/tape/delete/{tape}", status=409, fields="detail", bad=(
        ("/api/tape/delete/none", "", None, 404),)),
    Case("POST", "/api/recovery/restore", status=202, fields="success recovery_id message",
        body={"backup_set_id": "{set}", "files": [{"file_path": "{source}/file1"}], "target_path": "{target}"}, bad=(
        ("", "", {"backup_set_id": "{set}", "files": [], "target_path": "/x"}, 422),
        ("", "", {"backup_set_id": "{set}", "files": [{"file_path": "/x"}], "target_path": "x"}, 422),
        ("", "", {"backup_set_id": "{set}", "files": [{"file_path": "/../x"}], "target_path": "/x"}, 422),
        ("", "", {"backup_set_id": "{set}", "files": [{"file_path": "/nowhere"}], "target_path": "/x"}, 404),
        ("", "", {"backup_set_id": "none", "files": [{"file_path": "/x"}], "target_path": "/x"}, 404),
        ("", "", {"backup_set_id": "{set}", "target_path": "/x"}, 422))),
    Case("POST", "/api/recovery/tasks", status=202, fields="success recovery_id message",
        body={"backup_set_id": "{set}", "files": [{"file_path": "{source}/deep"}], "target_path": "{target}"}, bad=(
        ("", "", {"backup_set_id": "{set}", "files": [{"file_path": 1}], "target_path": "/x"}, 422),)),
    Case("GET", "/api/recovery/tasks/{recovery}/status", bad=(("/api/recovery/tasks/none/status", "", None, 404),),
        fields="recovery_id backup_set_id files target_path status created_at started_at completed_at "
        "progress_percent processed_files total_files total_bytes processed_bytes error_message created_by"),
    Case("POST", "/api/recovery/tasks/{recovery}/cancel", status=409, bad=(
        ("/api/recovery/tasks/none/cancel", "", None, 404),)),
    Case("DELETE", "/api/backup/backup-sets/{set}", fields="success message", bad=(
        (f"/api/backup/backup-sets/{NO_SET}", "", None, 404),)),
]  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A sidecar with a set on a tape."""

    rig: Rig
    names: dict[str, str]

    def ask(self, method: str, path: str, query: str = "", body: Any = None) -> Answer:
        for name, value in self.names.items():
            path, query = (text.replace(f"{{{name}}}", value) for text in (path, query))
        return self.rig.unix(method, path + query, self._filled(body))

    def _filled(self, body: Any) -> Any:
        if isinstance(body, dict):
            return {key: self._filled(value) for key, value in body.items()}
        if isinstance(body, list):
            return [self._filled(value) for value in body]
        for name, value in self.names.items():
            if isinstance(body, str):
                body = body.replace(f"{{{name}}}", value)
        return body

    def finish(self, answer: Answer) -> None:
        """Wait for the task of an answer, which must end well."""
        poll = str(answer.body["poll"])
        if "recovery_id" in answer.body:
            self.names["recovery"] = answer.body["recovery_id"]
            wait_until(lambda: self.rig.unix("GET", poll).body["completed_at"] is not None, poll)
            assert self.rig.unix("GET", poll).body["status"] == "completed", self.rig.unix("GET", poll).body
            return
        wait_until(lambda: self.rig.unix("GET", poll).body["state"] not in ("waiting", "running"), poll)
        assert self.rig.unix("GET", poll).body["state"] == "done", self.rig.unix("GET", poll).body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("taf")
    source = folder / "source"
    (source / "deep").mkdir(parents=True)
    for number in range(5):
        (source / f"file{number}").write_text(f"content {number}\n")
    (source / "deep" / "inner").write_bytes(b"x" * 100_000)
    (source / "link").symlink_to("/etc")
    home = make_home(folder / "home", tapes=4, tape_bytes=256 * 1024**2)
    with (home.path / "tapefs.toml").open("a") as settings:
        settings.write(f'\n[access]\nsources = ["{source}"]\n')
    with running(open_home(home.path), is_real=True) as rig:
        number = rig.unix("POST", "/api/backup/tasks", {"task_name": "one", "source_paths": [str(source)]}).body
        assert rig.unix("POST", f"/api/backup/tasks/{number['task_id']}/run").status == 202
        job = rig.wait_job(number["task_id"], "completed", "failed")
        assert job["state"] == "completed", job
        found = rig.unix("GET", "/api/recovery/sets").body["backup_sets"][0]
        tapes = rig.unix("GET", "/api/tape/list").body["tapes"]
        blank = [each["tape_id"] for each in tapes if each["status"] == "available"]
        names = {
            "task": str(number["task_id"]), "set": found["set_id"], "tape": found["tape_id"], "blank": blank[-1],
            "source": str(source), "target": str(folder / "target"),
        }  # fmt: skip
        yield Site(rig, names)


def check(site: Site, case: Case, path: str) -> Answer:
    answer = site.ask(case.method, path, case.query, case.body)
    assert answer.status == case.status, (path, answer)
    missing = [name for name in case.fields.split() if name not in answer.body]
    assert not missing, (path, missing, answer.body)
    return answer


def check_bad(site: Site, case: Case) -> None:
    for path, query, body, status in case.bad:
        answer = site.ask(case.method, path or case.path, query, body)
        assert answer.status == status, (case.path, query, body, answer)
        if status == 422:
            assert isinstance(answer.detail, list), answer
            assert {"type", "loc", "msg", "input"} <= set(answer.detail[0]), answer
        else:
            assert isinstance(answer.detail, str), answer


@pytest.mark.parametrize("case", [*LOOKING, *SYSTEM], ids=lambda case: f"{case.method} {case.path}")
def test_what_only_looks(site: Site, case: Case) -> None:
    first = check(site, case, case.path)
    for path in case.also:
        assert check(site, case, path).body == first.body
    check_bad(site, case)


def test_what_changes(site: Site) -> None:
    for case in CHANGING:
        check_bad(site, case)
        answer = check(site, case, case.path)
        if answer.status == 202:
            site.finish(answer)


def test_no_call_is_missed() -> None:
    """Every call of these groups that is served is in a table here, in each of its spellings."""
    served = {
        (method, call.path)
        for call in calls_of(cast(Service, Parts()))
        for method in call.methods or ()
        if call.path.startswith(("/api/backup/", "/api/recovery/", "/api/tape/")) and method != "HEAD"
    }
    cases = {
        (case.method, plain(path)) for case in [*LOOKING, *CHANGING, *ELSEWHERE] for path in (case.path, *case.also)
    }
    assert {(method, plain(path)) for method, path in served} == cases


def plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


#: Those that other modules test: tasks by `test_taf`.
ELSEWHERE = [
    Case("POST", "/api/backup/tasks"), Case("PUT", "/api/backup/tasks/{}"), Case("DELETE", "/api/backup/tasks/{}"),
    Case("POST", "/api/backup/tasks/{}/run"), Case("POST", "/api/backup/tasks/{}/cancel"),
    Case("PUT", "/api/backup/tasks/{}/cancel"),
]  # fmt: skip


def test_folders_of_the_host(site: Site) -> None:
    listed = site.ask("GET", "/api/system/file-system/list", "?path={source}").body
    assert listed["parent_path"] is None
    assert {item["name"]: item["type"] for item in listed["items"]} == {
        **{f"file{number}": "file" for number in range(5)}, "deep": "directory", "link": "symlink",
    }  # fmt: skip
    page = site.ask("GET", "/api/system/file-system/list", "?path={source}&limit=2&offset=1").body["items"]
    assert [item["name"] for item in page] == ["file0", "file1"]
    deep = site.ask("GET", "/api/system/file-system/list", "?path={source}/deep").body
    assert (deep["parent_path"], deep["items"][0]["size"]) == (site.names["source"], 100_000)
