"""`tapefs job show` says in words what JSON has as 0, null or an empty list."""

from __future__ import annotations

from catalog.ids import JobId, JobNumber, SetId
from catalog.records import AS_POOL, DriveMove, Job
from tapefs.cli.job_facts import job_facts
from tapefs.cli.jobs import job_json

NEW = Job(number=JobNumber(1), job_id=JobId("j"), name="docs", sources=(b"/a", b"/\xff"))
AT_NS = 1_700_000_000 * 10**9


def told(job: Job, **more: object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for title, value in job_facts({**job_json(job), **more}):
        found.setdefault(title, []).append(value)
    return found


def test_a_job_that_asks_for_nothing_special() -> None:
    """No zero, no None, no empty text: each says what it means."""
    facts = told(NEW, drive=None, buffer=None, remarks="")
    raw = ("", "0", "None", "[]", "()", "-1")
    assert [title for title, values in facts.items() if set(values) & set(raw)] == ["runs"]
    assert facts["sources"] == ["/a", "/\\xff"]
    expected = {"threads": "as the settings say", "level": "auto", "min size": "no bound", "max age": "no bound"}
    expected |= {"kept": "for ever", "pool": "the usual one", "retries": "none", "spool": "as the settings say"}
    expected |= {"excludes": "none", "checksum": "no", "drive": "not known", "finished at": "-", "set id": "none yet"}
    assert {title: facts[title] for title in expected} == {title: [value] for title, value in expected.items()}
    assert "retry first" not in facts


def test_a_job_that_asks_for_much() -> None:
    job = Job(
        number=JobNumber(2),
        job_id=JobId("j"),
        name="docs",
        sources=(b"/a",),
        level=3,
        threads=4,
        spool=True,
        min_bytes=1024,
        max_age_s=30 * 86_400,
        min_age_s=90,
        excludes=("*.o", "a b"),
        retention_days=AS_POOL,
        pool="daily",
        copy_pools=("vault",),
        retries=2,
        retry_longest_s=7200,
        after=(JobNumber(1),),
        set_id=SetId("s"),
        moves=(DriveMove(drive="drive0", tape="TP0001L9", reason="smoke", at_ns=AT_NS),),
        finished_at_ns=AT_NS,
    )
    facts = told(job, buffer={"size_bytes": 2048, "starts": 1, "stops": 0})
    expected = {
        "level": ["3"],
        "threads": ["4"],
        "spool": ["yes"],
        "min size": ["1.0 KiB"],
        "max age": ["30 days"],
        "min age": ["90 seconds"],
        "excludes": ["*.o", "a b"],
        "kept": ["as its pool says"],
        "pool": ["daily"],
        "copy pools": ["vault"],
        "retries": ["2"],
        "retry first": ["1 minute"],
        "retry longest": ["2 hours"],
        "after": ["job 1"],
        "moves": ["2023-11-14 22:13:20Z: drive0 failed with tape TP0001L9 in it: smoke"],
        "finished at": ["2023-11-14 22:13:20Z"],
        "buffer": ["2.0 KiB, 1 start, 0 stops at the low-water mark"],
    }
    assert {title: facts[title] for title in expected} == expected


def test_what_a_sidecar_answers() -> None:
    """Names that are not UTF-8 come as base64 there, and what runs comes with it."""
    progress = {"stage": "read", "files": 1, "bytes": 2048, "stored_bytes": 0, "path": "", "tape": ""}
    facts = dict(
        job_facts({"sources": ["/a", {"b64": "L/8="}], "progress": progress, "jobs_before": 0, "troubles": []})
    )
    assert facts["sources"] == "/\\xff"
    assert facts["progress"] == "read: 1 file, 2.0 KiB read, 0 B on tape"
    assert (facts["jobs before"], facts["troubles"]) == ("0", "none")
