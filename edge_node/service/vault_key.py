"""The vault key of a site that keeps it in memory only: who may make one or destroy, and who must do without."""

from __future__ import annotations

import fcntl
import os
import weakref

from edge_node.config.schema import Config
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode

LOCK = "identity.lock"


class Held:
    """Held by a run of the dicom role until its process ends: no other run destroys meanwhile what it seals.

    Whoever destroys what earlier runs sealed is `alone`: none of them may be running still.
    """

    def __init__(self, config: Config, *, alone: bool) -> None:
        path = config.node.data_dir / LOCK
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise Stop(
                "identity.no-lock",
                f"{path}: cannot be opened: {error.strerror}",
                hint="edge-node init, as the user the node runs as",
                exit_code=ExitCode.NOT_PERMITTED if isinstance(error, PermissionError) else 74,
            ) from None
        self._handle = handle
        self.release = weakref.finalize(self, os.close, handle)
        self.hold(alone=alone)

    def hold(self, *, alone: bool) -> None:
        """Hold it from now on like this. Raises Stop ``identity.in-use``."""
        try:
            fcntl.flock(self._handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise Stop(
                "identity.in-use",
                "a dicom role of this data folder is running, and the identities it holds would be lost",
                hint="edge-node status; stop it first",
                exit_code=ExitCode.TRY_AGAIN,
            ) from None


def in_memory(config: Config) -> bool:
    """Whether the vault key of this site is in memory only."""
    return config.node.identity == "memory"


def refuse_without_key(config: Config, instead: str) -> None:
    """For a command that would open or seal identity by itself. Raises Stop ``identity.in-memory``."""
    if in_memory(config):
        raise Stop(
            "identity.in-memory",
            "[node] identity: the vault key is in the memory of the running dicom role only, no command has it",
            hint=instead,
            exit_code=ExitCode.NOT_PERMITTED,
        )
