"""What was refused, by sender and reason: counted for `edge-node status`, bounded against senders who invent names."""

from __future__ import annotations

import threading
import time
from typing import Any

MOST_ROWS = 200
OTHERS = "(others)"
NOBODY = "(none)"


class Tally:
    """Counts since the receiver started; safe to use from any thread."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def count(self, sender: str, reason: str) -> int:
        """One more; `sender` is the calling AE title, "" before it was given. Returns the count so far."""
        key = (_printable(sender), reason)
        with self._lock:
            if key not in self._rows and len(self._rows) >= MOST_ROWS:
                key = (OTHERS, reason)
            number = self._rows.get(key, (0, 0.0))[0] + 1
            self._rows[key] = (number, time.time())
            return number

    def rows(self) -> list[dict[str, Any]]:
        """``from``, ``reason``, ``count`` and ``last_at`` (seconds since the epoch), the most frequent first."""
        with self._lock:
            rows = list(self._rows.items())
        return [
            {"from": sender, "reason": reason, "count": count, "last_at": round(at, 1)}
            for (sender, reason), (count, at) in sorted(rows, key=lambda row: -row[1][0])
        ]


def _printable(sender: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in sender.strip())[:16] or NOBODY
