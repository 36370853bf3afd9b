"""Sealing of bytes at rest: AES-256-GCM in chunks, one key per object, bound to what the object is.

Layout of a sealed blob: magic ``EDN1``, 16 bytes of salt, then chunks of at most 512 KiB of plain text, each followed
by its 16-byte tag. The object key is HKDF-SHA256(data key, salt), so nonces are plain chunk counters and can never
repeat under one key; the last chunk's nonce carries a final flag, so that a cut-off blob does not open.

What only somebody else shall read is sealed to their public key instead: HPKE (RFC 9180) in base mode with
DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, single shot, so that any HPKE program with the private key
opens it without this one. The blob is the 32 bytes of the encapsulated key and the ciphertext.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from edge_node.domain.body import Body, Buffer
from edge_node.domain.errors import Quarantine, Stop

KEY_BYTES = 32
CHUNK = 512 * 1024
_MAGIC = b"EDN1"
_SALT = 16
_TAG = 16
_GMAC_NONCE = bytes(12)
HEAD = len(_MAGIC) + _SALT
_KEM = b"KEM\x00\x20"
_SUITE = b"HPKE\x00\x20\x00\x01\x00\x02"


def new_key() -> bytes:
    """A fresh random 256-bit key."""
    return os.urandom(KEY_BYTES)


def _object_cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"edge-node sealed object").derive(key))


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(8, "big") + b"\0\0\0" + (b"\1" if last else b"\0")


def seal(key: bytes, plain: bytes | memoryview, context: str) -> bytes:
    """Seal `plain` under the 32-byte `key`; `context` (what and whose it is) must be given again to open it."""
    return b"".join(seal_chunks(key, plain, context))


def seal_chunks(key: bytes, plain: bytes | memoryview, context: str) -> Iterator[bytes]:
    """The pieces of `seal`, one after the other: a large object is never in memory twice."""
    view = memoryview(plain)
    return _sealed_blocks(key, (view[at : at + CHUNK] for at in range(0, len(view), CHUNK)), len(view), context)


def seal_body(key: bytes, body: Body, context: str, passing: Callable[[Buffer], None] | None = None) -> Iterator[bytes]:
    """The pieces of `seal` of something that need not be in memory; `passing` sees what is sealed, so that it is read
    once."""
    blocks = body.blocks(CHUNK)
    return _sealed_blocks(key, blocks if passing is None else _seen(blocks, passing), body.size, context)


def _seen(blocks: Iterable[Buffer], passing: Callable[[Buffer], None]) -> Iterator[Buffer]:
    for block in blocks:
        passing(block)
        yield block


def _sealed_blocks(key: bytes, blocks: Iterable[Buffer], length: int, context: str) -> Iterator[bytes]:
    """`blocks` are of CHUNK bytes, only the last one is shorter. Raises ValueError unless they have `length` bytes."""
    salt = os.urandom(_SALT)
    cipher = _object_cipher(key, salt)
    aad = context.encode()
    yield _MAGIC + salt
    last = max(1, -(-length // CHUNK)) - 1
    index = 0
    for index, block in enumerate(blocks if length else (b"",)):
        if len(block) != min(CHUNK, length - index * CHUNK):
            raise ValueError("what is to be sealed is not as long as it was said to be")
        yield cipher.encrypt(_nonce(index, index == last), block, aad)
    if index != last:
        raise ValueError("what is to be sealed is not as long as it was said to be")


def fingerprint(key: bytes, chunks: Iterable[Buffer]) -> bytes:
    """16 bytes that tell different bytes apart for whoever has not the 32-byte `key`: GMAC (NIST SP 800-38D).

    Ten times faster than a hash. Never to be shown: the nonce is always the same, so two tags would betray the key.
    """
    pieces = iter(chunks)
    first, second = next(pieces, b""), next(pieces, None)
    if second is None:  # the usual object, at half the price
        return AESGCM(key).encrypt(_GMAC_NONCE, b"", first)
    engine = Cipher(algorithms.AES(key), modes.GCM(_GMAC_NONCE)).encryptor()
    for piece in chain((first, second), pieces):
        engine.authenticate_additional_data(piece)
    engine.finalize()
    return engine.tag


def sealed_length(plain: int) -> int:
    """Length of the sealed form of `plain` bytes."""
    return len(_MAGIC) + _SALT + plain + _TAG * max(1, -(-plain // CHUNK))


def unsealed_chunks(key: bytes, sealed: bytes | memoryview, context: str) -> Iterator[bytes]:
    """Yield the plain text of `seal` chunk by chunk.

    Raises Quarantine("store.seal-broken") when the blob was cut, altered, or belongs to another key or context.
    """
    view = memoryview(sealed)
    if bytes(view[:4]) != _MAGIC:
        raise _broken()
    cipher = _object_cipher(key, bytes(view[4 : 4 + _SALT]))
    aad = context.encode()
    body = view[4 + _SALT :]
    step = CHUNK + _TAG
    count = max(1, -(-len(body) // step))
    try:
        for index in range(count):
            yield cipher.decrypt(_nonce(index, index == count - 1), bytes(body[index * step : (index + 1) * step]), aad)
    except (InvalidTag, ValueError):
        raise _broken() from None


class SealedParts:
    """A sealed blob whose plain text is opened in parts. `head` are its first `HEAD` bytes, `plain` its length."""

    def __init__(self, key: bytes, head: bytes, plain: int, context: str) -> None:
        if head[:4] != _MAGIC or len(head) != HEAD:
            raise _broken()
        self._cipher = _object_cipher(key, head[4:])
        self._plain = plain
        self._last = max(1, -(-plain // CHUNK)) - 1
        self._aad = context.encode()

    def place(self, index: int) -> tuple[int, int]:
        """Where the sealed form of a chunk lies in the blob: offset, length."""
        return HEAD + index * (CHUNK + _TAG), min(CHUNK, self._plain - index * CHUNK) + _TAG

    def open(self, index: int, sealed: bytes) -> bytes:
        """The plain text of a chunk. Raises Quarantine("store.seal-broken")."""
        try:
            return self._cipher.decrypt(_nonce(index, index == self._last), sealed, self._aad)
        except (InvalidTag, ValueError):
            raise _broken() from None


def unseal(key: bytes, sealed: bytes | memoryview, context: str) -> bytes:
    """Inverse of `seal`; errors as `unsealed_chunks`."""
    return b"".join(unsealed_chunks(key, sealed, context))


def _broken() -> Quarantine:
    return Quarantine(
        "store.seal-broken",
        "a sealed object does not open: it was altered, cut short, or sealed under another key",
        hint="check the disk and the key files, then `edge-node audit verify`",
    )


def seal_to(public: bytes, plain: bytes, context: str) -> bytes:
    """Seal `plain` to the owner of the X25519 key `public` (32 bytes). Nobody else opens it, the sealer neither."""
    ephemeral = X25519PrivateKey.generate()
    encapsulated = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    key, nonce = _schedule(shared, encapsulated + public, context)
    return encapsulated + AESGCM(key).encrypt(nonce, plain, b"")


def unseal_with(private: bytes, sealed: bytes, context: str) -> bytes:
    """Inverse of `seal_to` with the private key (32 bytes). Raises Quarantine("store.seal-broken")."""
    owner, encapsulated = X25519PrivateKey.from_private_bytes(private), sealed[:KEY_BYTES]
    try:
        shared = owner.exchange(X25519PublicKey.from_public_bytes(encapsulated))
        key, nonce = _schedule(shared, encapsulated + owner.public_key().public_bytes_raw(), context)
        return AESGCM(key).decrypt(nonce, sealed[KEY_BYTES:], b"")
    except (InvalidTag, ValueError):
        raise _broken() from None


def _schedule(shared: bytes, kem_context: bytes, context: str) -> tuple[bytes, bytes]:
    """Key and nonce of the one message (RFC 9180 4.1, 5.1); `context` is HPKE's info."""
    secret = _expand(_KEM, _extract(_KEM, b"", b"eae_prk", shared), b"shared_secret", kem_context, KEY_BYTES)
    names = _extract(_SUITE, b"", b"psk_id_hash", b"") + _extract(_SUITE, b"", b"info_hash", context.encode())
    message = _extract(_SUITE, secret, b"secret", b"")
    return (
        _expand(_SUITE, message, b"key", b"\0" + names, KEY_BYTES),
        _expand(_SUITE, message, b"base_nonce", b"\0" + names, 12),
    )


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    named = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(algorithm=SHA256(), length=length, info=named).derive(key)


def new_key_pair(passphrase: str = "") -> tuple[bytes, bytes]:
    """A fresh X25519 key pair as PEM: (private key, PKCS #8, encrypted if a passphrase is given; public key)."""
    private = X25519PrivateKey.generate()
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase.encode())
    pem = serialization.Encoding.PEM
    return (
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, how),
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def public_key(pem: bytes) -> bytes:
    """The 32 bytes of an X25519 public key in PEM. Raises Stop("escrow.no-public-key")."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PublicKey):
        raise Stop(
            "escrow.no-public-key",
            "[deid] escrow: the file holds no X25519 public key in PEM",
            hint="`edge-node key escrow DIR` makes one; the node gets the public key only",
        )
    return key.public_bytes_raw()


def private_key(pem: bytes, passphrase: str = "") -> bytes:
    """The 32 bytes of an X25519 private key in PEM. Raises Stop("escrow.no-private-key"), also for a wrong passphrase;
    NeedsPassphrase if it is encrypted and none was given."""
    if b"ENCRYPTED" in pem and not passphrase:
        raise NeedsPassphrase
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise Stop(
            "escrow.no-private-key",
            "the file holds no X25519 private key in PEM, or the passphrase is wrong",
            hint="give the private key that belongs to the public key in deid.escrow",
        )
    return key.private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """The public key (32 bytes) that belongs to a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def key_name(public: bytes) -> str:
    """What the ledger calls a public key by: the first 8 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:8]


class NeedsPassphrase(Exception):
    """The private key is encrypted and no passphrase was given."""
