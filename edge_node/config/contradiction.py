"""What keeps a well-typed configuration from working."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contradiction:
    """`text` is wrong about the first of `keys` (dotted); the others are the options that make it wrong."""

    keys: tuple[str, ...]
    text: str
