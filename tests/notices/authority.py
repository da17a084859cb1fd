"""A certificate authority of one's own, as companies have one."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = datetime.timedelta(days=1)


class Authority:
    """Its certificate lies in `ca_file`."""

    def __init__(self, folder: Path, name: str = "our own") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.ca_file = folder / "ca.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        own = self._signed(self._name, self._key.public_key(), constraints, _DAY)
        self.ca_file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def server(
        self, host: str = "localhost", lasts: datetime.timedelta = _DAY, context: ssl.SSLContext | None = None
    ) -> ssl.SSLContext:
        """Return what a server of that name speaks with, or have one speak with a new certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = self._signed(name, key.public_key(), names, lasts)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        pair = self._folder / "server.pem"
        pair.touch(0o600)
        pair.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, *form) + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        return context

    def _signed(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        lasts: datetime.timedelta,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * _DAY)
            .not_valid_after(now + lasts)
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )
