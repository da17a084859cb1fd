"""TLS by files."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import warnings
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.access import tls
from sidecar.access.tls import Tls
from tapefs.errors import HomeError
from tests.sidecar.access.rig import home_with
from tests.sidecar.rig import ROOT, Rig, running

HTTP = 'tls_certificate = "tls.crt"\ntls_key = "tls.key"'


def write_pair(folder: Path, name: str = "localhost", passphrase: bytes = b"") -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").touch(0o600)
    (folder / "tls.key").write_bytes(encoded)


def connection(rig: Rig) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(rig.home.path / "tls.crt"))
    return http.client.HTTPSConnection("127.0.0.1", rig.port, timeout=60, context=context)


def test_tcp_speaks_tls_only(tmp_path: Path) -> None:
    home = home_with(tmp_path / "home", "", HTTP)
    write_pair(home.path)
    with running(home, listen=True) as rig:
        client = connection(rig)
        client.request("GET", "/health", headers={"Authorization": f"Bearer {rig.token}"})
        assert client.getresponse().status == 200
        client.close()
        password = {"name": "ada", "role": "viewer", "password": "long enough a password"}
        assert rig.unix("POST", "/api/v1/users", password).status == 201
        client = connection(rig)
        client.request("POST", "/api/v1/session", b'{"name": "ada", "password": "long enough a password"}')
        answer = client.getresponse()
        [(name, morsel)] = SimpleCookie(answer.headers["set-cookie"]).items()
        assert name == "__Host-tapefs_session"
        assert morsel["secure"] is True
        client.close()
        _check_the_cookie_over_tls(rig, morsel.value)
        _check_no_plain_text(rig)
        _check_no_old_tls(rig)
        assert rig.unix("GET", "/health").status == 200


def _check_the_cookie_over_tls(rig: Rig, secret: str) -> None:
    """Under its plain name, which a neighbouring host could set, it does not count."""
    for name, status in (("__Host-tapefs_session", 200), ("tapefs_session", 401)):
        client = connection(rig)
        client.request("GET", "/api/v1/session", headers={"Cookie": f"{name}={secret}"})
        assert client.getresponse().status == status
        client.close()


def _check_no_plain_text(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port), timeout=60) as peer:
        peer.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not peer.recv(100).startswith(b"HTTP/")


def _check_no_old_tls(rig: Rig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", rig.port), timeout=60) as peer:
        with pytest.raises(OSError, match=r"(?i)version|reset|eof|alert"):
            context.wrap_socket(peer)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    home = home_with(tmp_path / "home", "", HTTP)
    write_pair(home.path)
    (home.path / "tls.key").chmod(0o640)
    done = subprocess.run(
        [sys.executable, "-m", "tapefs", "--home", str(home.path), "serve", "--listen", "127.0.0.1:0"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "others may read it: chmod 600" in done.stderr


def test_files_that_are_no_pair(tmp_path: Path) -> None:
    write_pair(tmp_path)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    Tls(certificate, key)
    other = tmp_path / "other"
    other.mkdir()
    write_pair(other)
    with pytest.raises(HomeError, match="no certificate and its key"):
        Tls(certificate, other / "tls.key")
    with pytest.raises(HomeError, match="cannot read"):
        Tls(tmp_path / "missing", key)
    write_pair(other, passphrase=b"secret")
    with pytest.raises(HomeError, match="passphrase"):
        Tls(other / "tls.crt", other / "tls.key")


@pytest.mark.log_warnings
def test_a_renewed_certificate_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be read leaves the old one in use."""
    monkeypatch.setattr(tls, "LOOK_S", 0.0)
    write_pair(tmp_path, "one")
    served = Tls(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert _names(served) == "one"
    write_pair(tmp_path, "two")
    served.renew()
    assert _names(served) == "two"
    (tmp_path / "tls.crt").write_text("nothing")
    served.renew()
    assert _names(served) == "two"


def _names(served: Tls) -> str:
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    server = served.context.wrap_bio(to_us, to_them, server_side=True)
    client = context.wrap_bio(to_them, to_us)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    name = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name[0].value)
