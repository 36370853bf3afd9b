"""Certificates for a test: a CA, a server, clients of several kinds; made with OpenSSL."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.needed_tools import need

_EXTENSIONS = (
    "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
)


class Pki:
    """`folder` holds NAME.pem and NAME.key: ``ca``, ``other-ca``, ``server``, ``client``, ``second``, ``rogue`` (of the
    other CA), ``expired``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca("ca")
        self._ca("other-ca")
        for name, ca, days in (
            ("server", "ca", 90),
            ("client", "ca", 90),
            ("second", "ca", 90),
            ("soon", "ca", 5),
            ("rogue", "other-ca", 90),
            ("expired", "ca", -1),
        ):
            self._leaf(name, ca, days)

    def cert(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def fingerprint(self, name: str) -> str:
        """SHA-256, as OpenSSL prints it: pairs with colons."""
        return (
            self._openssl("x509", "-in", self.cert(name), "-noout", "-fingerprint", "-sha256").partition("=")[2].strip()
        )

    def _openssl(self, *words: object) -> str:
        command = [need("openssl"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    def _key(self, name: str) -> None:
        self._openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", self.key(name))
        self.key(name).chmod(0o400)

    def _ca(self, name: str) -> None:
        self._key(name)
        self._openssl(
            *("req", "-x509", "-new", "-key", self.key(name), "-subj", f"/CN={name}", "-days", 90),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.cert(name)),
        )

    def _leaf(self, name: str, ca: str, days: int) -> None:
        self._key(name)
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(_EXTENSIONS)
        self._openssl("req", "-new", "-key", self.key(name), "-subj", f"/CN={name}", "-out", request)
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.cert(ca), "-CAkey", self.key(ca), "-CAcreateserial"),
            *("-days", days, "-extfile", extensions, "-out", self.cert(name)),
        )
