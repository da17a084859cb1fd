"""/api/v1/expire."""

from __future__ import annotations

from uuid import uuid4

from tests.sidecar.rig import Rig


def test_what_stays_and_what_goes(rig: Rig) -> None:
    made = []
    number = rig.submit("expires")
    made.append(rig.wait_job(number, "completed")["set_id"])
    assert rig.unix("POST", f"/api/v1/jobs/{number}/run").status == 202
    made.append(rig.wait_job(number, "completed")["set_id"])
    verdicts = {each["set_id"]: each for each in rig.unix("GET", "/api/v1/expire").body["verdicts"]}
    assert [verdicts[each]["why"] for each in made] == ["for ever", "newest"]
    wished = rig.unix("GET", f"/api/v1/expire?failed=true&sets={made[0]}").body["verdicts"]
    assert {each["set_id"]: each["why"] for each in wished if each["set_id"] in made} == {
        made[0]: "named",
        made[1]: "newest",
    }
    assert rig.unix("GET", "/api/v1/expire").body["verdicts"] == list(verdicts.values())
    answer = rig.unix("POST", "/api/v1/expire", {"sets": [made[0]]})
    assert (answer.status, answer.body["expired"], answer.body["freed_bytes"]) == (200, [made[0]], 0)
    shown = {each["set_id"] for each in rig.unix("GET", "/api/recovery/sets").body["backup_sets"]}
    assert made[1] in shown
    assert made[0] not in shown
    assert rig.unix("POST", "/api/v1/expire", {}).body["expired"] == []


def test_refusals(rig: Rig) -> None:
    assert rig.unix("POST", "/api/v1/expire", {"sets": [str(uuid4())]}).status == 404
    assert rig.unix("POST", "/api/v1/expire", {"sets": ["../x"]}).status == 422
    assert rig.unix("GET", f"/api/v1/expire?sets={uuid4()}").status == 404
    for query in ("sets=../x", "failed=yes", f"sets={uuid4()},"):
        assert rig.unix("GET", f"/api/v1/expire?{query}").status == 422
    assert rig.unix("POST", "/api/v1/expire", {"all": True}).status == 422
    hanging = rig.submit("hang")
    rig.wait_progress(hanging)
    running = rig.job(hanging)["set_id"]
    answer = rig.unix("POST", "/api/v1/expire", {"sets": [running], "failed": True})
    assert running not in answer.body["expired"]
    assert next(each["why"] for each in answer.body["verdicts"] if each["set_id"] == running) == "running"
    assert rig.unix("POST", f"/api/v1/jobs/{hanging}/cancel").status == 202
    rig.wait_job(hanging, "cancelled")
    assert running in rig.unix("POST", "/api/v1/expire", {"failed": True}).body["expired"]
