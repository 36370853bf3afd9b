"""The escrow key pair: made anywhere but among the node's own files, looked for where it must not be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_node.config.schema import Config
from edge_node.config.secrets import keys_dir, sync_folder
from edge_node.domain.errors import Stop
from edge_node.store.seal import NeedsPassphrase, key_name, new_key_pair, private_key, public_key

PRIVATE, PUBLIC = "escrow-private.pem", "escrow-public.pem"
_LARGEST = 65536  # bytes; no key file is larger


@dataclass(frozen=True, slots=True)
class Pair:
    """Where the two halves are, and the name (8 hexadecimal digits) that the ledger calls them by."""

    name: str
    private: Path
    public: Path


def new_pair(folder: Path, passphrase: str, config: Config) -> Pair:
    """Make a key pair in `folder`: the private key 0400, the public key 0444. Raises Stop("escrow.key-place") when
    the folder lies within the node's data, holds a pair already, or cannot be written."""
    inside = [own for own in (config.node.data_dir, keys_dir(config)) if _within(folder, own)]
    if inside:
        raise Stop(
            "escrow.key-place",
            f"{folder} lies within {inside[0]}: the private key must not be where the node can read it",
            hint="name a folder on removable media, or run this on another machine",
        )
    private, public = new_key_pair(passphrase)
    pair = Pair(key_name(public_key(public)), folder / PRIVATE, folder / PUBLIC)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content, mode in ((pair.private, private, 0o400), (pair.public, public, 0o444)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, mode)
                file.write(content)
                file.flush()
                os.fsync(handle)
        sync_folder(folder)
    except OSError as error:
        raise Stop(
            "escrow.key-place",
            f"{folder}: the key pair cannot be written: {error.strerror}",
            hint="name a new folder of your own; a key is never overwritten",
            exit_code=74,
        ) from None
    return pair


def misplaced(config: Config) -> Iterator[Path]:
    """Files beside the node keys, the ledger or the public key that look like an escrow private key."""
    folders = {keys_dir(config), config.node.data_dir}
    if config.deid.escrow is not None:
        folders.add(config.deid.escrow.parent)
    for folder in sorted(folders):
        try:
            paths = sorted(folder.iterdir())
        except OSError:
            continue
        yield from (path for path in paths if path != config.forward.client_key and _is_private(path))


def _is_private(path: Path) -> bool:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            return False
        private_key(path.read_bytes())
    except NeedsPassphrase:
        return True
    except (OSError, Stop):
        return False
    return True


def _within(folder: Path, own: Path) -> bool:
    return own.resolve() in (folder.resolve(), *folder.resolve().parents)
