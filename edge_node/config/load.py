"""Configuration from default < file < environment < flag; every value knows where it came from.

All that is wrong is told at once, one line a problem, each with the place to mend: `file:line`, the environment
variable or the flag.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from edge_node.config.checks import contradictions
from edge_node.config.lines import Key, key_lines
from edge_node.config.options import ENV_PREFIX, REPEATED, Option, depth_of, option_at, sections
from edge_node.config.schema import SHIPPED_RECIPES, Config
from edge_node.config.wording import sentence, syntax_problem, title
from edge_node.domain.errors import Stop

DEFAULT_PATH = Path("/etc/edge-node/edge-node.toml")
PATH_VARIABLE = "EDGE_NODE_CONFIG"

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; as text `default`, `/etc/x.toml:12`, `EDGE_NODE_RECEIVE__PORT`, `--set receive.port`."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.name}:{self.line}" if self.line else self.name
        return {"default": "default", "environment": self.name, "flag": f"--set {self.name}"}[self.kind]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration in force. `origin` has every dotted key; `path` is the file read, None if there is none."""

    config: Config
    origin: Mapping[str, Origin]
    path: Path | None


class ConfigInvalid(Stop):
    """`config.invalid`: `problems` has one line each, which together are the message."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(
            "config.invalid",
            "\n".join(problems),
            hint="mend the lines above, then: edge-node config check; every option: edge-node config example",
            exit_code=78,
        )
        self.problems = problems

    def __reduce__(self) -> tuple[type[ConfigInvalid], tuple[tuple[str, ...]]]:
        return (ConfigInvalid, (self.problems,))


def load(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded:
    """Read the configuration.

    `path`: the file; default $EDGE_NODE_CONFIG, else /etc/edge-node/edge-node.toml if there is one. `environ`: default
    os.environ; `EDGE_NODE_RECEIVE__PORT=11113`, lists with commas, tables as `CT=10,CR=5`, "" unsets an optional
    path. `flags`: values (or such text) by dotted key, `{"receive.port": 11113}`. Paths in the file are relative to
    the file's folder, others to the working directory. Raises ConfigInvalid (a Stop, exit code 78) with all problems.
    """
    env = os.environ if environ is None else environ
    draft = _Draft()
    source = _source(path, env)
    if source is not None:
        draft.read_file(source)
    draft.read_environment(env)
    for dotted, value in (flags or {}).items():
        draft.set_text_or_value(tuple(dotted.split(".")), value, Origin("flag", dotted))
    draft.resolve_paths(source)
    config = draft.validated(env)
    return Loaded(config=config, origin=draft.origins(config), path=source)


def _source(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path.absolute()
    named = environ.get(PATH_VARIABLE)
    if named:
        return Path(named).absolute()
    try:
        DEFAULT_PATH.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # it may well be there: reading it will tell why it cannot be read
    return DEFAULT_PATH


class _Draft:
    """Values as told so far, not yet checked, and where each was told."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._where: dict[Key, Origin] = {}
        self._problems: list[tuple[Origin, str]] = []
        self._file = ""

    def read_file(self, path: Path) -> None:
        self._file = str(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
            self._values = tomllib.loads(text)
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
            raise ConfigInvalid((f"{path}: cannot be read: {reason}",)) from None
        except UnicodeDecodeError as error:
            line = path.read_bytes()[: error.start].count(b"\n") + 1
            raise ConfigInvalid((f"{path}:{line}: not UTF-8 text",)) from None
        except tomllib.TOMLDecodeError as error:
            line, problem = syntax_problem(text, str(error))
            raise ConfigInvalid((f"{path}:{line}: {problem}",)) from None
        for key, line in key_lines(text).items():
            self._where[key] = Origin("file", self._file, line)

    def read_environment(self, environ: Mapping[str, str]) -> None:
        for name in sorted(environ):
            if not name.startswith(ENV_PREFIX) or name == PATH_VARIABLE:
                continue
            origin = Origin("environment", name)
            parts = name.removeprefix(ENV_PREFIX).split("__")
            if len(parts) > 1:
                self.set_text_or_value(self._from_variable(parts), environ[name], origin)
                continue
            for options in sections().values():  # EDGE_NODE_RECEIVE_PORT would be silently without effect
                for option in options.values():
                    if option.section not in REPEATED and name == option.variable.replace("__", "_"):
                        self._problem(origin, f"has no effect; did you mean {option.variable}?")

    def _from_variable(self, parts: list[str]) -> Key:
        path = tuple(part.lower() for part in parts)
        if path[:2] in (("settle", "quiet_by_modality"), ("deid", "variables")):
            return (*path[:2], *parts[2:])  # modalities are written in capitals, variables as the recipe spells them
        if path[0] == "peers" and len(path) > 1:
            peers = self._values.get("peers")
            for name in peers if isinstance(peers, dict) else ():
                if name.lower().replace("-", "_") == path[1]:
                    return ("peers", name, *path[2:])
        return path

    def set_text_or_value(self, path: Key, value: object, origin: Origin) -> None:
        if path[:2] == ("deid", "rules") and len(path) > 2:
            self._problem(origin, "one rule cannot be changed here; write [[deid.rules]] in the file")
            return
        option = option_at(path)
        if isinstance(value, str) and option is not None:
            value = _from_text(value, option, nested=len(path) > depth_of(path))
        elif isinstance(value, tuple):
            value = list(value)
        table = self._values
        for depth, part in enumerate(path[:-1], 1):
            if part not in table:
                # one entry of a table option leaves the default's other entries as they are
                outer = option_at(path[:depth])
                default = outer.default if outer is not None else None
                table[part] = dict(default) if isinstance(default, dict) else {}
                self._where[path[:depth]] = origin
            table = table[part]
            if not isinstance(table, dict):
                return  # the file has a plain value where a table belongs: that is the problem to tell
        table[path[-1]] = value
        self._mark(path, value, origin)

    def _mark(self, path: Key, value: object, origin: Origin) -> None:
        for key in [key for key in self._where if key[: len(path)] == path]:
            del self._where[key]
        self._where[path] = origin
        if isinstance(value, dict):
            for key, inner in value.items():
                self._mark((*path, str(key)), inner, origin)

    def resolve_paths(self, source: Path | None) -> None:
        for path, option in _path_options(self._values):
            table: Any = self._values
            for part in path[:-1]:
                table = table[int(part) if isinstance(table, list) else part]
            value = table[path[-1]]
            if option.key == "recipe" and value in SHIPPED_RECIPES:
                continue  # a name; a file of that name is ./basic
            if value == "":
                table[path[-1]] = None
                if not option.optional:
                    del table[path[-1]]
                    self._problem(self._origin_of(path), f"[{option.section}] {option.key}: must not be empty")
            elif isinstance(value, str | Path):
                from_file = source is not None and self._origin_of(path).kind == "file"
                base = source.parent if from_file and source is not None else Path.cwd()
                table[path[-1]] = str(base / value)

    def validated(self, environ: Mapping[str, str]) -> Config:
        """The configuration, or ConfigInvalid with every problem, also those that show only between options."""
        values = json.loads(json.dumps(self._values, default=str))  # a copy, with dates as text
        broken: list[Key] = []
        config: Config | None = None
        while config is None:
            gone: list[Key] = []
            try:
                config = Config.model_validate_json(json.dumps(values), strict=True)
            except ValidationError as error:
                # Without what is wrong the rest can be checked; a table that lacks a key goes as a whole.
                for detail in error.errors(include_url=False):
                    path = tuple(str(part) for part in detail["loc"])
                    if not any(path[: len(known)] == known for known in broken):
                        self._problem(self._origin_of(path), sentence(detail, path))
                    gone.append(path[:-1] if detail["type"] == "missing" else path)
                for path in gone:
                    broken.append(_take_out(values, path))
        for found in contradictions(config, environ=environ):
            keys = [tuple(key.split(".")) for key in found.keys]
            if not any(_overlap(key, known) for key in keys for known in broken):
                self._problem(self._origin_of_contradiction(keys), f"{title(keys[0])}: {found.text}")
        if self._problems:
            ordered = sorted(self._problems, key=lambda problem: _reading_order(problem[0]))
            raise ConfigInvalid(tuple(dict.fromkeys(f"{origin}: {text}" for origin, text in ordered)))
        return config

    def origins(self, config: Config) -> dict[str, Origin]:
        """Origin of every value by dotted key; entries of tables one by one."""
        return {".".join(path): self._where.get(path, Origin("default")) for path in _leaves(config)}

    def _problem(self, origin: Origin, text: str) -> None:
        self._problems.append((origin, text))

    def _origin_of(self, path: Key) -> Origin:
        for length in range(len(path), 0, -1):
            if path[:length] in self._where:
                return self._where[path[:length]]
        return Origin("file", self._file) if self._file else Origin("default")

    def _origin_of_contradiction(self, keys: list[Key]) -> Origin:
        for key in keys:
            if key in self._where:
                return self._where[key]
        return self._origin_of(keys[0])


def _from_text(text: str, option: Option, *, nested: bool = False) -> object:
    """`text` of a variable or flag as the option wants it; what does not fit stays text, for the check to reject."""
    kind = option.kind if not nested else "text" if option.kind == "texts" else "number"
    if kind == "boolean":
        return _BOOLEANS.get(text.strip().lower(), text)
    if kind in ("integer", "number"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind == "list":
        return parts
    if kind in ("map", "texts"):
        pairs = [part.partition("=") for part in parts]
        return {name.strip(): _from_text(value, option, nested=True) for name, _, value in pairs}
    return text


def _path_options(values: Mapping[str, Any]) -> Iterator[tuple[Key, Option]]:
    for name, options in sections().items():
        for path, table in _tables(values, tuple(name.split("."))):
            for key, option in options.items():
                if option.kind == "path" and key in table:
                    yield (*path, key), option


def _tables(values: Mapping[str, Any], path: Key) -> Iterator[tuple[Key, dict[str, Any]]]:
    """The table at `path`; if there are several (an array of tables, peers by name), each of them."""
    found: Any = values
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    several = found.items() if path == ("peers",) and isinstance(found, dict) else ()
    for name, table in (*several, *enumerate(found if isinstance(found, list) else ())):
        if isinstance(table, dict):
            yield (*path, str(name)), table
    if isinstance(found, dict) and path != ("peers",):
        yield path, found


def _take_out(values: dict[str, Any], path: Key) -> Key:
    """Remove the key at `path`, for an element of a list the whole list; the path of what was removed."""
    table = values
    for depth, part in enumerate(path[:-1], 1):
        inner = table.get(part)
        if not isinstance(inner, dict):
            table.pop(part, None)
            return path[:depth]
        table = inner
    table.pop(path[-1], None)
    return path


def _overlap(one: Key, other: Key) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _reading_order(origin: Origin) -> tuple[int, int, str]:
    return (("default", "file", "environment", "flag").index(origin.kind), origin.line, origin.name)


def _leaves(config: Config) -> Iterator[Key]:
    def walk(path: Key, value: object) -> Iterator[Key]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {str(number): inner for number, inner in enumerate(value)}
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk((*path, key), inner)
        else:
            yield path

    for name, table in config.model_dump().items():
        for key, value in table.items():
            yield from walk((name, key), value)
