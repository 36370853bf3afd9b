"""Who we are to a web server: basic authentication or a bearer token, from files that may be renewed at any time."""

from __future__ import annotations

import base64
from pathlib import Path
from threading import Lock

from edge_node.config.destinations import WebPeer
from edge_node.config.secrets import read_secret_file
from edge_node.domain.errors import Retry, Stop


class Credentials:
    """The Authorization header of requests, read from the secret files when first needed and again after a 401.

    Safe for several threads.
    """

    def __init__(self, config: WebPeer) -> None:
        self._user = config.user
        self._password_file = config.password_file
        self._token_file = config.token_file
        self._lock = Lock()
        self._header: dict[str, str] | None = None

    def __repr__(self) -> str:
        return "<Credentials>"

    @property
    def configured(self) -> bool:
        """True when requests carry an Authorization header."""
        return bool(self._token_file or self._user)

    def header(self) -> dict[str, str]:
        """Headers to add, {} without credentials. Raises `Retry` when a secret file cannot be used."""
        with self._lock:
            if self._header is None:
                self._header = self._read()
            return self._header

    def refresh(self, refused: dict[str, str]) -> dict[str, str]:
        """Headers read anew after `refused` earned a 401; requests under way at once re-read the files only once."""
        with self._lock:
            if self._header is None or self._header == refused:
                self._header = self._read()
            return self._header

    def forget(self) -> None:
        """Drop what was read, so that the next pass reads the files again."""
        with self._lock:
            self._header = None

    def _read(self) -> dict[str, str]:
        if self._token_file:
            token = _secret(self._token_file)
            if not token.isascii() or not token.isprintable() or " " in token:  # RFC 6750 2.1; no header injection
                raise Retry("secrets.file-invalid", f"{self._token_file}: this is no bearer token", hint="rewrite it")
            return {"Authorization": f"Bearer {token}"}
        if self._user:
            password = _secret(self._password_file) if self._password_file else ""
            pair = base64.b64encode(f"{self._user}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}


def _secret(path: Path) -> str:
    try:
        return read_secret_file(path)
    except Stop as problem:  # a renewal under way, or something an administrator mends while the studies wait
        raise Retry(problem.code, problem.message, hint=problem.hint) from None
