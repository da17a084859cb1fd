"""WebDAV as RFC 4918 has it, through a real socket: what is told, what is refused, and to whom."""

from __future__ import annotations

import socket
import stat
from urllib.parse import unquote_to_bytes

import pytest

from tests.sidecar.dav.conftest import MANY, ODD, PASSWORD, USER, Site, basic, values
from tests.sidecar.rig import wait_until

D = "{DAV:}"
FILE = {f"{D}{name}" for name in ("displayname", "resourcetype", "getcontentlength", "getcontenttype", "getetag",
                                  "getlastmodified", "creationdate", "supportedlock", "lockdiscovery")}  # fmt: skip
FOLDER = FILE - {f"{D}{name}" for name in ("getcontentlength", "getcontenttype", "getetag")}


def names_in(site: Site, path: str) -> set[bytes]:
    listed = site.ask("PROPFIND", path, depth="1").responses
    return {unquote_to_bytes(href[len(path) :]) for href in listed if href != path}


def test_what_a_client_is_told_first(site: Site) -> None:
    for path in ("/", "/dav", "/dav/", site.inner):
        reply = site.ask("OPTIONS", path, auth=None)
        assert reply.status == 200
        assert (reply.headers["dav"], reply.headers["ms-author-via"]) == ("1", "DAV")
        assert reply.headers["allow"] == "OPTIONS, PROPFIND, GET, HEAD"


def test_a_folder_and_what_is_in_it(site: Site) -> None:
    itself = site.ask("PROPFIND", site.inner, depth="0").responses
    assert list(itself) == [site.inner]
    found = values(itself[site.inner])
    assert {tag for tag in found if tag.startswith(D)} == FOLDER
    assert found[f"{D}resourcetype"].find(f"{D}collection") is not None
    listed = site.ask("PROPFIND", site.inner, depth="1").responses
    assert len(listed) == 11
    file = values(listed[site.at("large")])
    assert {tag for tag in file if tag.startswith(D)} == FILE
    assert file[f"{D}getcontentlength"].text == "3000000"
    assert file[f"{D}getlastmodified"].text == "Sun, 13 Sep 2020 12:26:40 GMT"
    assert file[f"{D}creationdate"].text == "2020-09-13T12:26:40Z"
    assert file[f"{D}getetag"].text == site.ask("HEAD", site.at("large")).headers["etag"]
    assert file[f"{D}getcontenttype"].text == site.ask("HEAD", site.at("large")).headers["content-type"]
    assert file["{urn:schemas-microsoft-com:}Win32FileAttributes"].text == "00001000", "offline: on tape"
    assert site.ask("GET", site.at("large")).status == 200
    file = values(site.ask("PROPFIND", site.at("large"), depth="0").responses[site.at("large")])
    assert file["{urn:schemas-microsoft-com:}Win32FileAttributes"].text == "00000080"


def test_without_a_slash_a_folder_is_told_with_one(site: Site) -> None:
    reply = site.ask("PROPFIND", site.inner.rstrip("/"), depth="1")
    assert reply.headers["content-location"] == site.inner
    assert site.inner in reply.responses
    assert site.ask("PROPFIND", "/dav", depth="1").responses.keys() >= {"/dav/", "/dav/jobs/", "/dav/README.txt"}
    assert site.ask("PROPFIND", site.at("large") + "/", depth="0").status == 404


def test_a_large_folder_comes_in_pieces_and_whole(site: Site) -> None:
    reply = site.ask("PROPFIND", site.odd("many/"), depth="1")
    assert "content-length" not in reply.headers
    assert len(reply.responses) == MANY + 1


def test_names_of_all_bytes(site: Site) -> None:
    path = site.odd(ODD)
    listed = site.ask("PROPFIND", site.odd(), depth="1").responses
    assert values(listed[path])[f"{D}displayname"].text == r"\xff odd%20?#&<\x01>\n.txt"
    assert site.ask("GET", path).body == b"odd"
    assert list(site.ask("PROPFIND", path, depth="0").responses) == [path]


def test_links_are_followed_as_samba_does(site: Site) -> None:
    shown = names_in(site, site.odd())
    assert shown == {b"deep/", b"to-folder/", b"other/", b"many/", b"to-file", b"to-link", b"absolute", ODD}
    assert site.ask("GET", site.odd("to-folder/text")).body == b"some text\n" * 50
    assert site.ask("GET", site.odd("absolute")).body == b"some text\n" * 50
    for name in ("outside", "too-far", "nowhere", "loop", "itself", "top", "pipe", "to-pipe", "itself/deep/text"):
        for method in ("GET", "PROPFIND"):
            assert site.ask(method, site.odd(name), depth="0").status == 404, name


def test_the_tree_has_an_end(site: Site) -> None:
    """deep/er/up leads to other, and other/again back to deep: behind one link to a folder there is no other."""
    assert names_in(site, site.odd("deep/er/up/")) == {b"plain"}
    assert names_in(site, site.odd("other/again/")) == {b"er/", b"mine", b"text"}
    assert names_in(site, site.odd("other/again/er/")) == set()
    assert site.ask("PROPFIND", site.odd("deep/er/up/again/"), depth="1").status == 404


def test_properties_by_name(site: Site) -> None:
    body = b"""<?xml version="1.0"?><propfind xmlns="DAV:"><prop><getetag/><quota-used-bytes/>
        <x:colour xmlns:x="urn:a&amp;&quot;&lt;b"/><plain xmlns=""/></prop></propfind>"""
    reply = site.ask("PROPFIND", site.at("large"), body, depth="0").responses[site.at("large")]
    assert values(reply).keys() == {f"{D}getetag"}
    assert values(reply, "404").keys() == {f"{D}quota-used-bytes", '{urn:a&"<b}colour', "plain"}
    reply = site.ask("PROPFIND", site.inner, body, depth="0").responses[site.inner]
    assert int(values(reply)[f"{D}quota-used-bytes"].text or "") > 3_000_000
    names = site.ask("PROPFIND", site.at("large"), b'<propfind xmlns="DAV:"><propname/></propfind>', depth="0")
    listed = values(names.responses[site.at("large")])
    assert {tag for tag in listed if tag.startswith(D)} == FILE
    assert not any(each.text or len(each) for each in listed.values())
    more = b'<propfind xmlns="DAV:"><allprop/><include><quota-available-bytes/></include></propfind>'
    found = values(site.ask("PROPFIND", site.inner, more, depth="0").responses[site.inner])
    assert found.keys() > FOLDER | {f"{D}quota-available-bytes"}


@pytest.mark.parametrize(
    "body",
    [
        b"<propfind",
        b'<propfind xmlns="DAV:"/>',
        b'<x xmlns="DAV:"/>',
        b'<propfind xmlns="DAV:"><prop/><allprop/></propfind>',
        b'<D:propfind xmlns:D="DAV:"><D:prop><bar:foo xmlns:bar=""/></D:prop></D:propfind>',
        b'<!DOCTYPE a [<!ENTITY b "b">]><propfind xmlns="DAV:"><prop><a>&b;</a></prop></propfind>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><propfind xmlns="DAV:"><allprop/></propfind>',
        b'<propfind xmlns="DAV:"><prop>' + b"<a>" * 50 + b"</a>" * 50 + b"</prop></propfind>",
        b'<propfind xmlns="DAV:"><prop>' + b"".join(b"<a%d/>" % each for each in range(500)) + b"</prop></propfind>",
        b'<?xml version="1.0" encoding="shift_jis"?><propfind xmlns="DAV:"><allprop/></propfind>',
        b'<?xml version="1.0" encoding="nonsense"?><propfind xmlns="DAV:"><allprop/></propfind>',
        b"\xff\xfe\x00",
    ],
)
def test_bodies_that_are_refused(site: Site, body: bytes) -> None:
    assert site.ask("PROPFIND", site.inner, body, depth="0").status == 400


def test_how_deep(site: Site) -> None:
    for headers in ({}, {"depth": "infinity"}):
        reply = site.ask("PROPFIND", site.inner, **headers)
        assert reply.status == 403
        assert b"<D:propfind-finite-depth/>" in reply.body
    assert site.ask("PROPFIND", site.at("large"), depth="infinity").status == 207, "it ends with itself"
    assert site.ask("PROPFIND", site.inner, depth="2").status == 400


def test_parts_and_conditions(site: Site) -> None:
    content = (site.tree / "large").read_bytes()
    reply = site.ask("GET", site.at("large"), range="bytes=1000000-1999999")
    assert (reply.status, reply.body) == (206, content[1_000_000:2_000_000])
    assert site.ask("GET", site.at("large"), if_none_match=reply.headers["etag"]).status == 304
    assert site.ask("GET", site.at("large"), range="bytes=3000000-").status == 416
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_who_has_lost_patience_gets_it_the_next_time(site: Site) -> None:
    """davfs2 waits 30 s, and a tape may take longer: what was asked for is fetched all the same."""
    with socket.create_connection(("127.0.0.1", site.rig.port), timeout=60) as peer:
        head = f"GET {site.at('large')} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.rig.token}\r\n\r\n"
        peer.sendall(head.encode())
    path = site.at("large").removeprefix("/dav")

    def state() -> str:
        return str(site.rig.unix("GET", f"/api/v1/files{path}").body["state"])

    assert state() != "online"
    wait_until(lambda: state() == "online", "fetched for nobody")


def test_what_would_change_something_is_refused(site: Site) -> None:
    for method in ("PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH"):
        assert site.ask(method, site.at("large"), destination=site.root + site.at("new")).status == 403, method
    for method in ("LOCK", "UNLOCK", "POST", "PATCH"):
        reply = site.ask(method, site.at("large"))
        assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, PROPFIND, GET, HEAD"), method
    assert site.ask("GET", site.inner).status == 405


def test_who_says_nothing_is_asked_for_a_password_only_here(site: Site) -> None:
    for method in ("PROPFIND", "GET", "PUT", "LOCK"):
        reply = site.ask(method, site.inner, auth=None)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Basic realm="tapefs", charset="UTF-8"')
    reply = site.ask("GET", "/api/v1/jobs", auth=None)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    reply = site.ask("GET", "/api/v1/jobs", auth=basic(USER, PASSWORD))
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), "a password is for WebDAV only"
    assert site.ask("GET", "/davx", auth=basic(USER, PASSWORD)).status == 401


def test_passwords_and_tokens(site: Site) -> None:
    for pair in (basic(USER, PASSWORD), basic("anything", site.rig.token)):
        assert site.ask("PROPFIND", site.inner, auth=pair, depth="0").status == 207
    for wrong in (basic(USER, "wrong"), basic("nobody", PASSWORD), basic("x", "tapefs_wrong"), "Basic !", "Basic"):
        reply = site.ask("PROPFIND", site.inner, auth=wrong, depth="0")
        assert (reply.status, reply.headers["www-authenticate"][:5]) == (401, "Basic"), wrong


def test_a_password_from_who_knows_where_is_not_taken(site: Site) -> None:
    """Through a proxy that the settings do not name: it may have come without TLS, and is not even asked for."""
    reply = site.ask("PROPFIND", site.inner, auth=basic(USER, PASSWORD), depth="0", x_forwarded_for="192.0.2.1")
    assert reply.status == 403
    reply = site.ask("PROPFIND", site.inner, auth=None, depth="0", x_forwarded_for="192.0.2.1")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_a_foreign_page_has_no_tape_moved(site: Site) -> None:
    """A browser that knows the password sends it with an image of somebody else's page, too."""
    pair = basic(USER, PASSWORD)
    for page, status in (("cross-site", 403), ("same-site", 403), ("none", 207), ("same-origin", 207)):
        reply = site.ask("PROPFIND", site.inner, auth=pair, depth="0", sec_fetch_site=page)
        assert reply.status == status, page
    assert site.ask("GET", site.odd("deep/text"), auth=pair, sec_fetch_site="cross-site").status == 403


def test_rights_are_those_of_the_source(site: Site) -> None:
    secret = site.rig.unix("POST", "/api/v1/tokens", {"role": "viewer", "uid": "daemon"}).body["secret"]
    path, daemon = site.odd("deep/text"), basic("daemon", secret)
    # The folder that pytest made for the trees is closed to others; the ones above it may have been opened by a test.
    assert stat.S_IMODE(site.tree.parent.stat().st_mode) == 0o700
    for method in ("GET", "PROPFIND"):
        assert site.ask(method, path, auth=daemon, depth="1").status == 403
    reader = site.rig.unix("POST", "/api/v1/tokens", {"scopes": [f"storage.read:{unquote_of(path)}"]}).body["secret"]
    stager = site.rig.unix("POST", "/api/v1/tokens", {"scopes": [f"storage.stage:{unquote_of(path)}"]}).body["secret"]
    assert site.ask("GET", path, auth=basic("fts", stager)).body == b"some text\n" * 50
    assert site.ask("GET", path, auth=basic("fts", reader)).body == b"some text\n" * 50
    assert site.ask("GET", site.odd("to-file"), auth=basic("fts", reader)).status == 403, "the link is another name"
    assert site.ask("GET", site.odd("deep/mine"), auth=basic("fts", reader)).status == 403
    assert site.ask("PROPFIND", site.odd("deep/"), auth=basic("fts", reader), depth="1").status == 207


def unquote_of(path: str) -> str:
    return unquote_to_bytes(path.removeprefix("/dav")).decode()
