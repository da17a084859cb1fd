"""litmus, the test suite of WebDAV servers: what it tests of reading passes, what it writes is refused.

It makes what it reads by itself. So a go-between says yes to all that writes and does nothing, lets the rest through,
and the folder that litmus believes to have made is in the archive.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sidecar.dav.calls import WRITING
from tests.sidecar.dav.conftest import PASSWORD, USER, Site

SUITES = Path("/usr/libexec/litmus")
#: Of the suite: its tests that read.
READING = {
    "basic": {"options", "put_get", "put_get_utf8_segment"},
    "props": {"propfind_invalid", "propfind_invalid2", "propfind_d0"},
}
_OWN = {"host", "content-length", "connection", "transfer-encoding", "date"}


def litmus(suite: str, url: str, folder: Path) -> dict[str, str]:
    """Results by test."""
    program = [str(SUITES / suite), "--htdocs", "/usr/share/litmus/htdocs", url, USER, PASSWORD]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, cwd=folder, errors="replace")
    results, name = {}, ""
    for line in re.split(r"[\r\n]+", done.stdout):
        begun = re.match(r" *\d+\. (\w+)\.*", line)
        name = begun[1] if begun else name
        ended = re.search(r"\b(pass|FAIL|SKIPPED)\b", line)
        if ended and name:
            results[name] = ended[1]
    return results


@contextmanager
def go_between(site: Site) -> Iterator[str]:
    prefix = site.inner.rstrip("/")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.command in WRITING:
                self._answer(201, [], b"")
                return
            sent = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
            with closing(HTTPConnection("127.0.0.1", site.rig.port, timeout=60)) as connection:
                connection.request(self.command, prefix + self.path, body or None, sent)
                answer = connection.getresponse()
                # It compares paths.
                self._answer(answer.status, answer.getheaders(), answer.read().replace(prefix.encode(), b""))

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _OWN:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    for method in (*WRITING, "GET", "PROPFIND", "OPTIONS"):
        setattr(Handler, f"do_{method}", Handler._serve)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("suite", READING)
def test_what_litmus_tests_of_reading(site: Site, tmp_path: Path, suite: str) -> None:
    with go_between(site) as url:
        results = litmus(suite, url, tmp_path)
    assert {name: results.get(name) for name in READING[suite]} == dict.fromkeys(READING[suite], "pass"), results


@pytest.mark.parametrize("suite", ["basic", "copymove", "props", "locks", "http"])
def test_litmus_cannot_write(site: Site, tmp_path: Path, suite: str) -> None:
    assert litmus(suite, site.root + site.inner, tmp_path) == {"init": "pass", "begin": "FAIL"}
