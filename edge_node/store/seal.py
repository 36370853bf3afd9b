"""Sealing of bytes at rest: AES-256-GCM in chunks, one key per object, bound to what the object is.

Layout of a sealed blob: magic ``EDN1``, 16 bytes of salt, then chunks of at most 512 KiB of plain text, each followed
by its 16-byte tag. The object key is HKDF-SHA256(data key, salt), so nonces are plain chunk counters and can never
repeat under one key; the last chunk's nonce carries a final flag, so that a cut-off blob does not open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_node.domain.errors import Quarantine

KEY_BYTES = 32
CHUNK = 512 * 1024
_MAGIC = b"EDN1"
_SALT = 16
_TAG = 16


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
    salt = os.urandom(_SALT)
    cipher = _object_cipher(key, salt)
    view = memoryview(plain)
    aad = context.encode()
    yield _MAGIC + salt
    count = max(1, -(-len(view) // CHUNK))
    for index in range(count):
        chunk = view[index * CHUNK : (index + 1) * CHUNK]
        yield cipher.encrypt(_nonce(index, index == count - 1), chunk, aad)


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


def unseal(key: bytes, sealed: bytes | memoryview, context: str) -> bytes:
    """Inverse of `seal`; errors as `unsealed_chunks`."""
    return b"".join(unsealed_chunks(key, sealed, context))


def _broken() -> Quarantine:
    return Quarantine(
        "store.seal-broken",
        "a sealed object does not open: it was altered, cut short, or sealed under another key",
        hint="check the disk and the key files, then `edge-node audit verify`",
    )
