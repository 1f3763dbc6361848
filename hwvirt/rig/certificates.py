"""Certificates for the two controllers of a run, made for it and of no use to anybody afterwards. Ref: RFC 5280.

The authority's key is forgotten as soon as it has signed: nobody can make a third certificate that the two accept.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hwvirt.controller.config import TlsConfig
from hwvirt.errors import UsageError
from hwvirt.link.config import TlsFiles
from hwvirt.rig.file.model import Ethernet, Rig, TlsSpec

__all__ = ["Papers", "copy_papers", "generate", "papers_given", "papers_of", "with_papers"]

_VALID = datetime.timedelta(days=365)
_CLOCKS_DIFFER = datetime.timedelta(days=1)
_FILES = ("authority.pem", "certificate.pem", "key.pem")
_BOTH_ROLES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


@dataclass(frozen=True, slots=True)
class Papers:
    """What one controller needs for TLS, in PEM."""

    authority: bytes
    certificate: bytes
    key: bytes

    def write(self, folder: Path, seen_as: PurePath | None = None) -> TlsConfig:
        """Writes them into a new folder, for its owner alone. Whoever reads them sees that folder as `seen_as`."""
        folder.mkdir(mode=0o700)
        for name, content in zip(_FILES, (self.authority, self.certificate, self.key), strict=True):
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(content)
        return TlsConfig(*(str((seen_as or folder) / name) for name in _FILES))


def papers_of(rig: Rig) -> Mapping[str, Papers]:
    """The papers of each controller, from its files or made now; none without TLS. Raises UsageError for a bad file."""
    if not isinstance(rig.link, Ethernet) or rig.link.tls is None:
        return {}
    return papers_given(rig) or generate(rig.controllers)


def papers_given(rig: Rig) -> Mapping[str, Papers]:
    """The papers of each controller where the rig names files. Raises UsageError for a bad one."""
    tls = rig.link.tls if isinstance(rig.link, Ethernet) else None
    return {name: _read(files) for name, files in tls.files.items()} if tls else {}


def copy_papers(papers: Mapping[str, Papers], folder: Path) -> None:
    """Writes papers into a new folder, where a rig `with_papers` finds them."""
    folder.mkdir(mode=0o700)
    for name, of_one in papers.items():
        of_one.write(folder / name)


def with_papers(rig: Rig, folder: Path) -> Rig:
    """The rig with the files that `copy_papers` has written instead of its own, which cannot be seen from here."""
    if not isinstance(rig.link, Ethernet) or rig.link.tls is None:
        return rig
    files = {name: TlsFiles(*(folder / name / each for each in _FILES)) for name in rig.link.tls.files}
    return replace(rig, link=replace(rig.link, tls=TlsSpec(files)))


def generate(names: Iterable[str], valid_from: datetime.datetime | None = None) -> dict[str, Papers]:
    """A certificate for each name, of one new authority; valid for a year from that day on, by default from yesterday."""
    begin = valid_from or datetime.datetime.now(datetime.UTC) - _CLOCKS_DIFFER
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _builder("hwvirt run", "hwvirt run", authority_key.public_key(), authority_key.public_key(), begin)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.add_extension(_usage(signs_certificates=True), critical=True)
    authority_pem = _pem(authority.sign(authority_key, hashes.SHA256()))
    papers = {}
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        wanted = _builder(name, "hwvirt run", key.public_key(), authority_key.public_key(), begin)
        wanted = wanted.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        wanted = wanted.add_extension(_usage(signs_certificates=False), critical=True)
        wanted = wanted.add_extension(_BOTH_ROLES, critical=False)
        papers[name] = Papers(authority_pem, _pem(wanted.sign(authority_key, hashes.SHA256())), _key_pem(key))
    return papers


def _read(files: TlsFiles) -> Papers:
    try:
        return Papers(files.authority.read_bytes(), files.certificate.read_bytes(), files.key.read_bytes())
    except OSError as error:
        reason = f"link TLS {error.filename}: {error.strerror}."
        raise UsageError(reason, next_step="Correct `link.ethernet.tls` of the rig.") from error


def _builder(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
) -> x509.CertificateBuilder:
    subject_name, issuer_name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer))
    return (
        x509.CertificateBuilder(issuer_name, subject_name, key, x509.random_serial_number(), begin, begin + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
