"""Errors named by what must be done about them: Retry, Quarantine or Stop.

A withheld or skipped study is an *outcome* (`Withheld`, a `TriageResult` with its reason), never an error.
Messages carry what went wrong, where, why and the next command; they never carry an attribute value, a name or an
original identifier, so they may be logged, stored in the ledger and shown.
"""

from __future__ import annotations

from dataclasses import dataclass


class EdgeNodeError(Exception):
    """Base of all errors the node raises on purpose.

    `code` is stable (``deid.residual-identifier``): documentation, alerts and greps rely on it.
    `hint` is the next command or setting to try. `study` is the node's pseudonymous study key, if one is known.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", study: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.hint = hint
        self.study = study

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class Retry(EdgeNodeError):
    """A passing condition (peer down, ledger busy): back off with jitter, call a human after the step's max age.

    `after` is the peer's own wish in seconds (HTTP Retry-After). `counts` is False when nothing was wrong with the
    study (the peer said "busy"): the back-off does not grow. `progress` is True when part of the work got done: the
    back-off begins anew.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        study: str | None = None,
        after: float | None = None,
        counts: bool = True,
        progress: bool = False,
    ) -> None:
        super().__init__(code, message, hint=hint, study=study)
        self.after = after
        self.counts = counts
        self.progress = progress


class Quarantine(EdgeNodeError):
    """Permanent for this input: hold it, show it in `edge-node status`, let a human release or discard it."""


class Stop(EdgeNodeError):
    """The role cannot go on honestly: it exits with `exit_code` (sysexits: 78 config, 69 unavailable, 74 I/O)."""

    def __init__(
        self, code: str, message: str, *, hint: str = "", study: str | None = None, exit_code: int = 78
    ) -> None:
        super().__init__(code, message, hint=hint, study=study)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Withheld:
    """Kept, but not sent out: `reason` is a stable code such as ``consent.denied`` or ``pixels.uncleaned``."""

    reason: str
