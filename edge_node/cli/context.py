"""What the admin said before the verb: which configuration, which overrides, for people or for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from edge_node.config.load import Loaded, load


@dataclass(frozen=True)
class Invocation:
    """The global options of one call of `edge-node`, in `ctx.obj` of every command.

    `config_path`: --config; `flags`: --set section.option=value by dotted key; `json`: --json.
    """

    config_path: Path | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    json: bool = False

    def load(self) -> Loaded:
        """The configuration, read once. Raises ConfigInvalid."""
        return self._loaded

    def arguments(self) -> list[str]:
        """The same global options as words, to hand on to a child process."""
        words = ["--config", str(self.config_path)] if self.config_path else []
        for key, value in self.flags.items():
            words += ["--set", f"{key}={value}"]
        return words

    @cached_property
    def _loaded(self) -> Loaded:
        return load(self.config_path, flags=self.flags)
