"""Exchange of a node key on disk, and the lock that keeps it from happening while somebody uses the keys.

Every moment in between can be gone on from: ``NAME.key`` always holds a whole key, and what it was before lies in
``NAME.old.key`` until whoever asked for the exchange drops it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import weakref
from collections.abc import Callable

from edge_node.config.schema import Config
from edge_node.config.secrets import KEY_BYTES, keys_dir, load_key, load_old_key, sync_folder
from edge_node.domain.errors import Stop

LOCK = "keys.lock"


class KeyGuard:
    """Held by every process as long as it uses node keys (shared), or by the one that exchanges them (exclusive).

    A shared guard waits for an exchange to end; where there is no data folder yet it guards nothing. Raises Stop:
    `keys.in-use` when an exclusive one cannot be had, `keys.no-lock` when the lock file cannot be opened.
    """

    def __init__(self, config: Config, *, exclusive: bool = False) -> None:
        path = config.node.data_dir / LOCK
        self._close: Callable[[], object] = lambda: None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not exclusive:
                return  # whoever loads the keys will say what is missing
            raise Stop(
                "keys.no-lock",
                f"{path}: cannot be opened: {error.strerror}",
                hint="run as the user the node runs as; was a command run as root?",
                exit_code=77 if isinstance(error, PermissionError) else 74,
            ) from None
        self._close = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            self._close()
            raise Stop(
                "keys.in-use",
                "the node or one of its commands is running and holds the keys in memory",
                hint="stop all roles, then try again",
                exit_code=75,
            ) from None

    def release(self) -> None:
        """Let go; may be repeated."""
        self._close()


def exchanged(config: Config, name: str) -> bool:
    """Whether `NAME.key` is a new key already and the one before it is still there."""
    before = load_old_key(name, config, environ={})
    return before is not None and before != load_key(name, config, environ={})


def exchange(config: Config, name: str) -> None:
    """Put a fresh key in the place of `NAME.key` and keep the one before as `NAME.old.key`; nothing if that is done.

    Only key files can be exchanged, no systemd credentials. Raises Stop as `load_key`, and `secrets.unwritable`.
    """
    if exchanged(config, name):
        return
    folder = keys_dir(config)
    current, before, draft = folder / f"{name}.key", folder / f"{name}.old.key", folder / f".{name}.new"
    load_key(name, config, environ={})
    try:
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if not before.exists():
            os.link(current, before)
            sync_folder(folder)
        draft.replace(current)
        sync_folder(folder)
    except OSError as error:
        raise Stop(
            "secrets.unwritable",
            f"{folder}: node keys cannot be made there: {error.strerror}",
            hint="run as the user the node runs as; the folder must be writable for the time of the exchange",
            exit_code=77 if isinstance(error, PermissionError) else 74,
        ) from None


def drop_old(config: Config, name: str) -> None:
    """Delete `NAME.old.key`."""
    folder = keys_dir(config)
    (folder / f"{name}.old.key").unlink(missing_ok=True)
    sync_folder(folder)
