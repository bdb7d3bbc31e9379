"""A certificate authority and a server certificate (P-256) for engines on loopback, made anew for each folder."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

# Protects nothing: the key beside it is in the clear. Java opens no key store without one.
STORE_PASSWORD = "loopback"
VALID = dt.timedelta(days=30)
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Identity:
    """``ca.pem``, ``server.pem`` and ``server.key`` for most programs, ``server.p12`` and ``trust.p12`` for Java.

    ``client.pem`` and ``client.key`` are for a client that a server asks for a certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.store = folder / "server.p12"
        self.trust = folder / "trust.p12"
        self.client_certificate = folder / "client.pem"
        self.client_key = folder / "client.key"

    def make(self) -> None:
        """Write all of them; nothing if they are here."""
        if self.store.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        name = _name("idtrace test authority")
        authority = (
            _certificate(name, name, authority_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        key, server = _signed("localhost", authority_key, name, server=True)
        client_key, client = _signed("node", authority_key, name, server=False)
        self.ca.write_bytes(authority.public_bytes(Encoding.PEM))
        _write(self.certificate, self.key, server, key)
        _write(self.client_certificate, self.client_key, client, client_key)
        protection = BestAvailableEncryption(STORE_PASSWORD.encode())
        trusted = pkcs12.PKCS12Certificate(authority, b"authority")
        self.trust.write_bytes(pkcs12.serialize_java_truststore([trusted], protection))
        self.store.write_bytes(pkcs12.serialize_key_and_certificates(b"server", key, server, [authority], protection))

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority alone and compares the name."""
        return ssl.create_default_context(cafile=str(self.ca))


def _signed(
    subject: str, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Name, *, server: bool
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A new key and its certificate; a server's names loopback, a client's names nothing but its subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _certificate(_name(subject), authority, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if server:
        names = [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), *names]), critical=False
        )
    return key, builder.sign(authority_key, hashes.SHA256())


def _write(certificate: Path, key: Path, signed: x509.Certificate, private: ec.EllipticCurvePrivateKey) -> None:
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(hours=1),
        not_valid_after=now + VALID,
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
