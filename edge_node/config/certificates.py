"""What stands in a certificate of ours: how long it is valid. The door to cryptography's X.509."""

from __future__ import annotations

import time
from pathlib import Path

from cryptography import x509


def days_left(path: Path) -> float:
    """Days until the first certificate of a PEM file expires; negative when it has. Raises OSError, ValueError."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return (certificate.not_valid_after_utc.timestamp() - time.time()) / 86400.0
