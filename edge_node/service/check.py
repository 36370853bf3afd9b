"""One line of `edge-node doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: ok, warn (works, but look) or fail, with the next command."""

    name: str
    result: Literal["ok", "warn", "fail"]
    detail: str
    hint: str = ""


def guarded(name: str, look: Callable[[Config], Check], config: Config) -> Check:
    """What `look` finds; an error it raises is a failed check."""
    try:
        return look(config)
    except EdgeNodeError as error:
        return Check(name, "fail", f"{error.code}: {error.message}", error.hint)
    except OSError as error:
        return Check(name, "fail", f"{error.filename}: {error.strerror}", "edge-node init, as the node's user")


def several(name: str, look: Callable[[Config], Iterator[Check]], config: Config) -> Iterator[Check]:
    """What `look` finds, one after the other; an error it raises is a failed check, the last one."""
    try:
        yield from look(config)
    except EdgeNodeError as error:
        yield Check(name, "fail", f"{error.code}: {error.message}", error.hint)
    except OSError as error:
        yield Check(name, "fail", f"{error.filename}: {error.strerror}", "edge-node init, as the node's user")
