"""What goes out by each kind of channel, to real servers; what is secret is told to nobody."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog.notice_records import Notice
from sidecar.notices.channels import (
    DeliveryFailed,
    check_status,
    message_of,
    open_channel,
    shown_url,
)
from sidecar.notices.posting import Answer, TargetPolicy
from tapefs.errors import HomeError
from tapefs.notice_kinds import FLAGS, KINDS, is_wanted, unknown_patterns
from tapefs.settings.notices import NotifySettings
from tests.notices.authority import Authority
from tests.notices.receiver import Receiver, receiving

OWN = TargetPolicy(allow_private=True, allow_http=True)
FAILED = Notice(
    number=7,
    at_ns=1_800_000_000_000_000_000,
    kind="backup.failed",
    subject="3",
    text="Job 3 (home) has failed: no tape",
    facts={"job": 3},
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as there:
        yield there


def settings_of(kind: str, url: str, **more: Any) -> NotifySettings:
    return NotifySettings(name="ops", kind=kind, url=url, **more)  # type: ignore[arg-type]


async def test_a_webhook_is_signed(receiver: Receiver, tmp_path: Path) -> None:
    """As a receiver checks it: over the timestamp and the very bytes."""
    channel = open_channel(settings_of("webhook", f"{receiver.url}/hook?t=canary", secret="s3cret"), tmp_path, OWN)
    await channel.send(FAILED)
    (posted,) = receiver.posted
    stamp = posted.headers["X-Tapefs-Timestamp"]
    wanted = hmac.new(b"s3cret", stamp.encode() + b"." + posted.body, hashlib.sha256).hexdigest()
    assert posted.headers["X-Tapefs-Signature"] == f"sha256={wanted}"
    assert posted.path == "/hook?t=canary"
    body = json.loads(posted.body)
    assert (body["number"], body["kind"], body["gravity"], body["facts"]) == (7, "backup.failed", "alarm", {"job": 3})
    assert "canary" not in channel.shown


async def test_a_webhook_over_tls(tmp_path: Path) -> None:
    """The receiver's certificate is signed by an authority of one's own, whose file is relative to the state folder."""
    authority = Authority(tmp_path / "ours")
    with receiving(authority.server()) as receiver:
        url = f"https://localhost:{receiver.port}/hook"
        channel = open_channel(settings_of("webhook", url, secret="s3cret", ca_file="ours/ca.pem"), tmp_path, OWN)
        await channel.send(FAILED)
    (posted,) = receiver.posted
    assert json.loads(posted.body)["number"] == 7
    assert posted.headers["X-Tapefs-Signature"].startswith("sha256=")


@pytest.mark.parametrize("wrong", ["signer", "name", "time", "system"])
async def test_a_certificate_that_is_not_believed(wrong: str, tmp_path: Path) -> None:
    """Nothing is sent; it is told what is wrong, and worth another attempt."""
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "others")
    host = "elsewhere.example" if wrong == "name" else "localhost"
    lasts = timedelta(hours=-1 if wrong == "time" else 1)
    with receiving((others if wrong == "signer" else ours).server(host, lasts)) as receiver:
        url = f"https://localhost:{receiver.port}/canary"
        ca_file = "" if wrong == "system" else str(ours.ca_file)
        channel = open_channel(settings_of("webhook", url, ca_file=ca_file), tmp_path, OWN)
        with pytest.raises(DeliveryFailed, match="its certificate is not believed: ") as caught:
            await channel.send(FAILED)
    assert caught.value.can_retry
    assert ("`ca_file`" in str(caught.value)) is (wrong in ("signer", "system"))
    assert receiver.posted == []
    assert "canary" not in str(caught.value)


def test_a_file_that_holds_no_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("canary")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(HomeError, match=f"{name} holds no certificates"):
            open_channel(settings_of("webhook", "https://localhost/x", ca_file=name), tmp_path, OWN)
    with pytest.raises(ValueError, match="is for webhooks and gateways"):
        settings_of("apprise", "json://localhost", ca_file="ca.pem")


async def test_a_webhook_is_tried_again_at_once_only_when_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    channel = open_channel(settings_of("webhook", f"http://127.0.0.1:{port}/canary"), tmp_path, OWN)
    with pytest.raises(DeliveryFailed) as caught:
        await channel.send(FAILED)
    assert caught.value.can_retry
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("status", "can_retry"), [(302, False), (400, False), (410, False), (429, True), (503, True)])
def test_which_answers_are_worth_another_attempt(status: int, can_retry: bool) -> None:
    with pytest.raises(DeliveryFailed) as caught:
        check_status(Answer(status, b""))
    assert caught.value.can_retry is can_retry


async def test_the_gateway_gets_what_taf_sends(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [(200, {}, b'{"success":true,"message":"ok"}')]
    channel = open_channel(
        settings_of("dingtalk", receiver.url, secret="the-key", phones=("138", "139"), language="zh"), tmp_path, OWN
    )
    await channel.send(FAILED)
    assert [posted.path for posted in receiver.posted] == ["/api/v1/messages/send"] * 2
    bodies = [json.loads(posted.body) for posted in receiver.posted]
    assert [set(body) for body in bodies] == [{"phone", "title", "content", "message_type"}] * 2
    assert [body["phone"] for body in bodies] == ["138", "139"]
    assert bodies[0]["message_type"] == "markdown"
    assert bodies[0]["title"] == "❌ 备份任务失败"
    assert "Job 3 (home) has failed: no tape" in bodies[0]["content"]
    assert {posted.headers["Authorization"] for posted in receiver.posted} == {"Bearer the-key"}


@pytest.mark.parametrize("said", [b'{"success":false,"message":"no such phone"}', b"<html>", b""])
async def test_a_gateway_that_does_not_take_it(receiver: Receiver, tmp_path: Path, said: bytes) -> None:
    receiver.answers = [(200, {}, said)]
    channel = open_channel(settings_of("dingtalk", receiver.url, phones=("138",)), tmp_path, OWN)
    with pytest.raises(DeliveryFailed, match="gateway"):
        await channel.send(FAILED)


async def test_apprise_posts_json(receiver: Receiver, tmp_path: Path) -> None:
    channel = open_channel(settings_of("apprise", f"json://127.0.0.1:{receiver.port}/canary"), tmp_path, OWN)
    await channel.send(FAILED)
    body = json.loads(receiver.posted[0].body)
    assert body["title"] == "❌ Backup failed"
    assert body["message"].startswith("Job 3 (home) has failed: no tape")
    assert body["type"] == "failure"
    assert channel.shown == "json://…"
    receiver.answers = [(500, {}, b"")]
    with pytest.raises(DeliveryFailed, match="json://…"):
        await channel.send(FAILED)


async def test_apprise_sends_mail(tmp_path: Path) -> None:
    """To a server that speaks just enough SMTP."""
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_take_mail, args=(server, lines))
        thread.start()
        url = f"mailto://127.0.0.1:{server.getsockname()[1]}?from=tapefs@example.org&to=ops@example.org&mode=insecure"
        await open_channel(settings_of("apprise", url), tmp_path, OWN).send(FAILED)
        thread.join(60)
    assert not thread.is_alive()
    text = "\n".join(lines)
    assert "RCPT TO:<ops@example.org>" in text.replace("rcpt", "RCPT").replace("RCPT to", "RCPT TO").replace(" <", "<")
    assert "Subject: " in text


def _take_mail(server: socket.socket, lines: list[str]) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rw", newline="\r\n") as file:

        def say(text: str) -> None:
            file.write(text + "\r\n")
            file.flush()

        say("220 here")
        is_data = False
        for line in file:
            lines.append(line.strip())
            if is_data:
                is_data = line.strip() != "."
                if not is_data:
                    say("250 taken")
            elif line.upper().startswith("DATA"):
                is_data = True
                say("354 go on")
            elif line.upper().startswith("QUIT"):
                say("221 bye")
                return
            else:
                say("250 fine")


@pytest.mark.parametrize(
    ("kind", "url"), [("apprise", "nothing://canary"), ("webhook", "https://u:canary@x/"), ("dingtalk", "x://canary/")]
)
def test_a_url_that_is_none_is_named_without_its_secrets(kind: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(HomeError) as caught:
        open_channel(settings_of(kind, url, phones=("1",)), tmp_path, OWN)
    assert "ops" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_url_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "hook"
    file.write_text("https://example.org/x\n")
    settings = NotifySettings(name="ops", kind="webhook", url_file="hook")
    os.chmod(file, 0o644)
    with pytest.raises(HomeError, match="chmod 600"):
        open_channel(settings, tmp_path, OWN)
    os.chmod(file, 0o600)
    assert open_channel(settings, tmp_path, OWN).shown == "https://example.org/…"
    with pytest.raises(HomeError, match="cannot read"):
        open_channel(NotifySettings(name="ops", url_file="none"), tmp_path, OWN)


def test_what_is_shown_of_urls() -> None:
    assert shown_url("slack://TokenA/TokenB/TokenC") == "slack://…"
    assert shown_url("https://user:pw@example.org:8443/path?token=1") == "https://example.org/…"
    assert shown_url("https://[") == "…"


def test_which_kinds_a_channel_wants() -> None:
    assert is_wanted(KINDS["backup.failed"], ())
    assert not is_wanted(KINDS["backup.succeeded"], ())
    assert is_wanted(KINDS["backup.succeeded"], ("backup.*",))
    assert unknown_patterns(["backup.*", "bakcup.*"]) == ["bakcup.*"]
    assert {kind.flag for kind in KINDS.values()} - {""} == set(FLAGS), "every flag of TAF's switches something"


def test_titles_are_in_the_language_of_the_channel() -> None:
    assert message_of(FAILED, "zh").title == "❌ 备份任务失败"
    assert message_of(FAILED, "en").title == "❌ Backup failed"
