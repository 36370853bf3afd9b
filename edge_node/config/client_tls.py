"""TLS as a client of another system of the site: which certificates we believe and which we show."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_node.domain.errors import Stop


def section_context(section: str, ca_file: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later; the peer's certificate is checked against `ca_file`, or the system's CAs when it is None.

    `cert` and `key` (PEM) are ours, for mutual TLS. Raises Stop ``forward.tls`` and the like, after the configuration
    `section` the files stand in, when one of them cannot be used; nobody is asked for a passphrase.
    """
    hint = f"see [{section}] in edge-node config show"
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert:
            context.load_cert_chain(cert, key, password=lambda: "")
        elif key:
            raise Stop(f"{section}.tls", f"[{section}] client_key is set without client_cert", hint=hint)
    except (OSError, ValueError):  # an SSLError is an OSError
        raise Stop(
            f"{section}.tls", f"[{section}] ca_file, client_cert or client_key cannot be used", hint="edge-node doctor"
        ) from None
    return context
