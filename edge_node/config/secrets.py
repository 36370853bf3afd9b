"""Node keys and passwords: read from files that only we can read, never from the config, never shown.

Each role can load the keys of its own work and no others; systemd hands them over with LoadCredential=, elsewhere
they are 0400 files in a 0700 folder made by `edge-node init`.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_node.config.schema import Config
from edge_node.domain.errors import Stop
from edge_node.domain.study import Role

KEY_BYTES = 32
NODE_KEYS = ("clean", "vault", "quarantine", "pseudonym")

_ROLE_KEYS: dict[Role, tuple[str, ...]] = {
    Role.DICOM: NODE_KEYS,
    Role.COMPUTE: ("clean",),
    Role.FORWARD: ("clean",),
    Role.STATUS: (),
}
_SECRET_LIMIT = 65536  # bytes; a longer "password file" is some other file
VAULT = "vault"


@dataclass(frozen=True, slots=True)
class MemoryVault:
    """A vault key that was never on a disk. `life` names the run of the dicom role that made it, and says nothing of
    the key. Handed to child processes by their spawn arguments (a pipe), never by environment or command line."""

    secret: bytes = field(repr=False)
    life: str

    @classmethod
    def fresh(cls) -> MemoryVault:
        """A new one."""
        return cls(secrets.token_bytes(KEY_BYTES), secrets.token_hex(8))


def keys_for(role: Role) -> tuple[str, ...]:
    """Names of the node keys that `role` may load."""
    return _ROLE_KEYS[role]


def keys_dir(config: Config) -> Path:
    """Folder of the node keys: `node.keys_dir`, else `keys` below `node.data_dir`."""
    return config.node.keys_dir or config.node.data_dir / "keys"


def kept_keys(config: Config) -> tuple[str, ...]:
    """Names of the node keys that are kept in files or credentials at this site."""
    return tuple(name for name in NODE_KEYS if name != VAULT or config.node.identity == "disk")


def create_keys(folder: Path, names: tuple[str, ...] = NODE_KEYS) -> tuple[str, ...]:
    """Make the node keys `names` that `folder` does not hold yet; the names of those made. Never overwrites one.

    Each key is complete and synced before it gets its name, so that a crash cannot leave half a key behind. Raises
    Stop `secrets.dir-too-open` if the folder exists and others may enter it, `secrets.unwritable` if it cannot be used.
    """
    made: list[str] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            raise Stop("secrets.dir-too-open", f"{folder}: other users may enter it", hint=f"chmod 0700 {folder}")
        for name in names:
            if _create_key(folder / f"{name}.key"):
                made.append(name)
        sync_folder(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise Stop(
            "secrets.unwritable",
            f"{folder}: node keys cannot be made there: {error.strerror}",
            hint="run edge-node init as the user the node runs as, or set node.keys_dir",
            exit_code=77 if isinstance(error, PermissionError) else 74,
        ) from None
    return tuple(made)


def _create_key(path: Path) -> bool:
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike rename, fails when the name is taken
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_key(name: str, config: Config, *, environ: Mapping[str, str] | None = None) -> bytes:
    """The 32 bytes of the node key `name`, from the systemd credential `edge-node-<name>.key`, else from `keys_dir`.

    Raises Stop: `secrets.missing-key`, `secrets.key-too-open`, `secrets.key-wrong-size`, `secrets.unreadable`.
    """
    if name not in NODE_KEYS:
        raise ValueError(f"there is no node key {name!r}")
    return _load(name, config, os.environ if environ is None else environ)


def load_old_key(name: str, config: Config, *, environ: Mapping[str, str] | None = None) -> bytes | None:
    """The node key that `name` was before its rotation, `NAME.old` in the same places; None if there is none.

    Raises as `load_key`.
    """
    env = os.environ if environ is None else environ
    path, _ = _place(f"{name}.old", config, env)
    return _load(f"{name}.old", config, env) if path.exists() else None


def _place(name: str, config: Config, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Where a key is, and whether systemd put it there."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        credential = Path(credentials) / f"edge-node-{name}.key"
        if credential.exists():
            return credential, True
    return keys_dir(config) / f"{name}.key", False


def _load(name: str, config: Config, environ: Mapping[str, str]) -> bytes:
    path, is_credential = _place(name, config, environ)
    try:
        content = _read_private(path, KEY_BYTES, is_credential=is_credential)
    except FileNotFoundError:
        raise Stop(
            "secrets.missing-key", f"{path}: the node key {name!r} is not there", hint="edge-node init"
        ) from None
    except _TooOpen:
        raise Stop(
            "secrets.key-too-open", f"{path}: other users may read this node key", hint=f"chmod 0400 {path}"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) != KEY_BYTES:
        raise Stop(
            "secrets.key-wrong-size",
            f"{path}: a node key has {KEY_BYTES} bytes, this file has another size",
            hint="restore it from your backup; on a node without studies: move it away, then edge-node init",
        )
    return content


def read_secret_file(path: Path, *, environ: Mapping[str, str] | None = None) -> str:
    """Password or token in `path`, UTF-8, without the line end.

    Raises Stop: `secrets.missing-file`, `secrets.file-too-open`, `secrets.file-invalid`, `secrets.unreadable`.
    """
    env = os.environ if environ is None else environ
    content = _secret(path, is_credential=_is_credential(path, env), hint="edge-node config check")
    try:
        text = content.decode("utf-8").rstrip("\r\n") if len(content) <= _SECRET_LIMIT else ""
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or "\r" in text:
        raise Stop("secrets.file-invalid", f"{path}: expected one line of text", hint="write the secret into it again")
    return text


def read_private_file(path: Path) -> bytes:
    """At most 64 KiB of a file that nobody else may read. Raises Stop as `read_secret_file`."""
    return _secret(path, is_credential=False, hint="check the path")


def _secret(path: Path, *, is_credential: bool, hint: str) -> bytes:
    try:
        return _read_private(path, _SECRET_LIMIT, is_credential=is_credential)
    except FileNotFoundError:
        raise Stop("secrets.missing-file", f"{path}: the file is not there", hint=hint) from None
    except _TooOpen:
        raise Stop(
            "secrets.file-too-open", f"{path}: other users may read this secret", hint=f"chmod 0400 {path}"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def secret_file_problem(path: Path, *, environ: Mapping[str, str] | None = None) -> str:
    """Why `path` cannot serve as a secret file, from its metadata alone; "" if it can.

    A file that this process is not allowed to see is no problem here: another role reads it.
    """
    env = os.environ if environ is None else environ
    try:
        status = path.stat()
    except PermissionError:
        return ""
    except OSError as error:
        return f"{path}: {_reason(error)}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path}: not a file"
    if _too_open(status.st_mode, is_credential=_is_credential(path, env)):
        return f"{path}: other users may read this secret; chmod 0400 {path}"
    return ""


class RoleKeys:
    """The node keys of one role, loaded at once so that a missing one is found at start. Shows names, never bytes.

    Where the vault key is in memory only, it is `vault`; whoever has not been given it does without.
    """

    def __init__(
        self,
        role: Role,
        config: Config,
        *,
        environ: Mapping[str, str] | None = None,
        vault: MemoryVault | None = None,
    ) -> None:
        self.role = role
        kept = [name for name in keys_for(role) if name in kept_keys(config)]
        self._keys = {name: load_key(name, config, environ=environ) for name in kept}
        old = {name: load_old_key(name, config, environ=environ) for name in kept}
        self._old = {name: key for name, key in old.items() if key is not None}
        if vault is not None and VAULT in keys_for(role):
            self._keys[VAULT] = vault.secret

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the keys at hand."""
        return tuple(self._keys)

    def key(self, name: str) -> bytes:
        """The key `name`; raises Stop `secrets.not-this-role` if this role has no business with it."""
        if name not in self._keys:
            raise Stop(
                "secrets.not-this-role",
                f"the role {self.role} may not use the node key {name!r}",
                hint="this is a defect of the node, please report it",
                exit_code=70,
            )
        return self._keys[name]

    def old(self, name: str) -> bytes | None:
        """What the key `name` was before its rotation, as long as that is kept."""
        self.key(name)
        return self._old.get(name)

    @property
    def old_keys(self) -> dict[str, bytes]:
        """All keys at hand from before a rotation, by name."""
        return dict(self._old)

    def __repr__(self) -> str:
        return f"<RoleKeys {self.role}: {', '.join(self._keys) or 'none'}>"


class _TooOpen(Exception):
    """Somebody else may read the file."""


def _read_private(path: Path, limit: int, *, is_credential: bool) -> bytes:
    """At most `limit` + 1 bytes of `path`; mode and content are of the same open file."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        if _too_open(status.st_mode, is_credential=is_credential):
            raise _TooOpen
        return file.read(limit + 1)


def _too_open(mode: int, *, is_credential: bool) -> bool:
    # systemd grants a service its credentials by ACL: the mask then shows as group-readable (0440) though no group is.
    return bool(stat.S_IMODE(mode) & (0o007 if is_credential else 0o077))


def _is_credential(path: Path, environ: Mapping[str, str]) -> bool:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.parent == Path(str(folder))


def _reason(error: OSError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)


def _unreadable(path: Path, error: OSError) -> Stop:
    return Stop(
        "secrets.unreadable",
        f"{path}: cannot be read: {_reason(error)}",
        hint="the file must belong to the user the node runs as",
        exit_code=77 if isinstance(error, PermissionError) else 74,
    )
