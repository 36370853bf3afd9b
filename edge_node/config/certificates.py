"""What a certificate of ours or a signature says. The door to cryptography's X.509 and ed25519.

A signature file is one line: ``ed25519 KEY SIGNATURE``, the id of the key and the signature in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


def days_left(path: Path) -> float:
    """Days until the first certificate of a PEM file expires; negative when it has. Raises OSError, ValueError."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return (certificate.not_valid_after_utc.timestamp() - time.time()) / 86400.0


def public_key_id(text: str) -> str:
    """Short id (16 hex digits) of an ed25519 public key in base64. Raises ValueError when it is none."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("is not base64") from None
    if len(raw) != 32:
        raise ValueError("is not an ed25519 public key (32 bytes in base64)")
    return hashlib.sha256(raw).hexdigest()[:16]


def new_signing_key() -> tuple[bytes, str]:
    """A fresh ed25519 key pair: the private key in PEM, the public key in base64."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, base64.b64encode(key.public_key().public_bytes_raw()).decode()


def sign(message: bytes, private_pem: bytes) -> bytes:
    """The text of a signature file. Raises ValueError when the PEM holds no ed25519 private key without passphrase."""
    try:
        key = load_pem_private_key(private_pem, None)
    except TypeError:
        raise ValueError("the key is encrypted") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is no ed25519 key")  # noqa: TRY004  the file is wrong, not the caller
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return f"ed25519 {public_key_id(public)} {base64.b64encode(key.sign(message)).decode()}\n".encode()


def signed_by(message: bytes, signature: bytes, trusted: tuple[str, ...]) -> str:
    """Id of the trusted key that signed, "" when none of them did. `trusted` are public keys in base64."""
    words = signature.split()
    if len(words) != 3 or words[0] != b"ed25519":
        return ""
    try:
        value = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return ""
    for text in trusted:
        try:
            Ed25519PublicKey.from_public_bytes(base64.b64decode(text)).verify(value, message)
        except (InvalidSignature, ValueError, binascii.Error):
            continue
        return public_key_id(text)
    return ""
