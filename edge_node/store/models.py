"""The registry of models: which packages this node holds, how far each may speak, and who decided that.

Every change of what decides is one transaction: the stages of all versions of a name, a row that remembers what was
before, and an audit entry with who and why. A package is immutable; the same version with other bytes is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from edge_node.domain.errors import Quarantine
from edge_node.domain.model import SPEAKING, Stage
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.tables import model_change, model_package

# One step at a time; down is always allowed.
_LADDER = (Stage.SHADOW, Stage.INFORMATION, Stage.LIVE)
_WEIGHT = (*reversed(_LADDER), Stage.ADDED, Stage.QUARANTINED, Stage.RETIRED)


@dataclass(frozen=True, slots=True)
class Registered:
    """One package of the registry; `code` and `message` say why it is in quarantine."""

    package: str
    name: str
    version: str
    stage: Stage
    trust: str
    code: str
    message: str
    size: int
    added_at: float
    changed_at: float


@dataclass(frozen=True, slots=True)
class Change:
    """One change of what decides: stages by version before and after."""

    id: int
    at: float
    name: str
    kind: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    who: str
    why: str
    undone: bool


def _not_found(name: str, version: str = "") -> Quarantine:
    what = f"{name} {version}".strip()
    return Quarantine("model.unknown", f"there is no model {what} on this node", hint="edge-node model list")


class Models:
    """The registry; `actor` is what the audit calls the process that writes."""

    def __init__(self, database: Database, actor: str) -> None:
        self.database, self.actor = database, actor

    def all(self, name: str = "") -> list[Registered]:
        """Every package, by name and age."""
        with self.database.read() as connection:
            return _all(connection, name)

    def find(self, name: str, version: str = "") -> Registered:
        """A package by name and version; without a version the one that decides most. Raises Quarantine
        ``model.unknown``."""
        found = [one for one in self.all(name) if version in ("", one.version)]
        if not name or not found:
            raise _not_found(name, version)
        return min(found, key=lambda one: (_WEIGHT.index(one.stage), -one.added_at))

    def generation(self) -> int:
        """Grows with every change."""
        with self.database.read() as connection:
            return int(connection.execute(select(func.max(model_change.c.id))).scalar() or 0)

    def changes(self, name: str = "") -> list[Change]:
        """What was changed, the newest first; stages by version."""
        with self.database.read() as connection:
            versions = {one.package: one.version for one in _all(connection)}
            rows = connection.execute(
                select(model_change)
                .where(*([model_change.c.name == name] if name else []))
                .order_by(model_change.c.id.desc())
            ).all()
        return [
            Change(
                row.id,
                row.at,
                row.name,
                row.kind,
                {versions.get(package, package): stage for package, stage in json.loads(row.before).items()},
                {versions.get(package, package): stage for package, stage in json.loads(row.after).items()},
                row.who,
                row.why,
                row.undone_by is not None,
            )
            for row in rows
        ]

    def add(
        self,
        package: str,
        name: str,
        version: str,
        *,
        trust: str,
        size: int,
        who: str,
        why: str,
        first: Stage = Stage.ADDED,
    ) -> bool:
        """Keep a package, not running, unless it is the first of its name: that one begins at `first`, in the same
        transaction. False when it is there already. Raises Quarantine ``model.version-taken``."""
        with self.database.write() as connection:
            known = {one.version: one for one in _all(connection, name)}
            if version in known:
                if known[version].package == package:
                    return False
                raise Quarantine(
                    "model.version-taken",
                    f"{name} {version} is on this node already, with other bytes",
                    hint="a version never changes: the maker gives the new package a new version",
                )
            now, before = time.time(), _stages(connection, name)
            connection.execute(
                insert(model_package).values(
                    package=package,
                    name=name,
                    version=version,
                    stage=Stage.ADDED,
                    trust=trust,
                    code="",
                    message="",
                    size=size,
                    added_at=now,
                    changed_at=now,
                )
            )
            added = {**before, package: Stage.ADDED}
            self._record(connection, "add", name, before, added, who, why)
            if not before and first != Stage.ADDED:
                self._record(connection, "promote", name, added, {package: first}, who, why)
        return True

    def promote(self, name: str, version: str, to: Stage, *, who: str, why: str) -> Registered:
        """Let a version speak as far as `to`; whatever version of the name had that place or less is retired.

        Up goes one step at a time, the first being shadow. Raises Quarantine ``model.unknown``, ``model.step``.
        """
        with self.database.write() as connection:
            one = self._one(connection, name, version)
            here = _LADDER.index(one.stage) if one.stage in _LADDER else -1
            if _LADDER.index(to) > here + 1:
                step = _LADDER[here + 1]
                raise Quarantine(
                    "model.step",
                    f"{name} {one.version} is {one.stage}: the next step is {step}, not {to}",
                    hint=f"edge-node model promote {name} {one.version} --to {step}",
                )
            before = _stages(connection, name)
            after = {**before, one.package: to}
            for other, stage in before.items():
                if other == one.package or to not in SPEAKING or stage not in SPEAKING:
                    continue
                if _LADDER.index(Stage(stage)) <= _LADDER.index(to):
                    after[other] = Stage.RETIRED
            self._record(connection, "promote", name, before, after, who, why)
        return self.find(name, one.version)

    def retire(self, name: str, version: str, *, who: str, why: str) -> Registered:
        """Take a version out of service. Raises Quarantine ``model.unknown``."""
        with self.database.write() as connection:
            one = self._one(connection, name, version)
            before = _stages(connection, name)
            self._record(connection, "retire", name, before, {**before, one.package: Stage.RETIRED}, who, why)
        return self.find(name, one.version)

    def before_last(self, name: str) -> tuple[Change, dict[str, Stage]]:
        """The change that a rollback would take back, and the stages (by package) it would bring back.

        Raises Quarantine ``model.unknown``, ``model.nothing-to-roll-back``."""
        with self.database.read() as connection:
            number, after = self._undo(connection, name)
        return next(one for one in self.changes(name) if one.id == number), after

    def rollback(self, name: str, expected: int, *, who: str, why: str) -> None:
        """Take back change `expected`, the last promotion or retirement. Raises as `before_last`, and ``model.changed``
        when somebody changed the model meanwhile."""
        with self.database.write() as connection:
            number, after = self._undo(connection, name)
            if number != expected:
                raise Quarantine(
                    "model.changed", f"{name} was changed by somebody else meanwhile", hint="edge-node model list"
                )
            before = _stages(connection, name)
            done = self._record(connection, "rollback", name, before, after, who, why)
            connection.execute(update(model_change).where(model_change.c.id == number).values(undone_by=done))

    def quarantine(self, package: str, code: str, message: str) -> bool:
        """Take a package that failed out of service until a human decides; False when it does not run any more."""
        with self.database.write() as connection:
            one = next((one for one in _all(connection) if one.package == package), None)
            if one is None or one.stage not in _LADDER:
                return False
            before = _stages(connection, one.name)
            after = {**before, package: Stage.QUARANTINED}
            self._record(connection, "quarantine", one.name, before, after, self.actor, f"{code}: {message}"[:2000])
            connection.execute(
                update(model_package).where(model_package.c.package == package).values(code=code, message=message)
            )
        return True

    def _one(self, connection: Connection, name: str, version: str) -> Registered:
        for one in _all(connection, name):
            if one.version == version:
                return one
        raise _not_found(name, version)

    def _undo(self, connection: Connection, name: str) -> tuple[int, dict[str, Stage]]:
        row = connection.execute(
            select(model_change)
            .where(
                model_change.c.name == name,
                model_change.c.kind.in_(("promote", "retire")),
                model_change.c.undone_by.is_(None),
            )
            .order_by(model_change.c.id.desc())
            .limit(1)
        ).one_or_none()
        if row is None:
            if not _all(connection, name):
                raise _not_found(name)
            raise Quarantine(
                "model.nothing-to-roll-back",
                f"there is no promotion or retirement of {name} to take back",
                hint=f"edge-node model show {name}",
            )
        now = _stages(connection, name)
        # What failed since stays out; versions added since stay as they are.
        back = {key: Stage(stage) for key, stage in json.loads(row.before).items()}
        return int(row.id), {
            key: Stage(stage) if stage == Stage.QUARANTINED else back.get(key, Stage(stage))
            for key, stage in now.items()
        }

    def _record(
        self,
        connection: Connection,
        kind: str,
        name: str,
        before: Mapping[str, str],
        after: Mapping[str, str],
        who: str,
        why: str,
    ) -> int:
        now = time.time()
        for package, stage in after.items():
            if before.get(package) != stage:
                connection.execute(
                    update(model_package)
                    .where(model_package.c.package == package)
                    .values(stage=stage, changed_at=now, code="", message="")
                )
        done = connection.execute(
            insert(model_change).values(
                at=now,
                name=name,
                kind=kind,
                before=json.dumps(before, sort_keys=True),
                after=json.dumps(after, sort_keys=True),
                who=who,
                why=why,
            )
        )
        versions = {one.package: one.version for one in _all(connection, name)}
        audit.append(
            connection,
            self.actor,
            f"model.{kind}",
            "",
            {
                "model": name,
                "changed": {
                    versions[key]: {"package": key, "from": str(before.get(key, "")), "to": str(stage)}
                    for key, stage in after.items()
                    if before.get(key) != stage
                },
                "who": who,
                "why": why,
            },
        )
        key = done.inserted_primary_key
        return int(key[0]) if key else 0


def _all(connection: Connection, name: str = "") -> list[Registered]:
    rows = connection.execute(
        select(model_package)
        .where(*([model_package.c.name == name] if name else []))
        .order_by(model_package.c.name, model_package.c.added_at)
    ).all()
    return [
        Registered(
            row.package,
            row.name,
            row.version,
            Stage(row.stage),
            row.trust,
            row.code,
            row.message,
            row.size,
            row.added_at,
            row.changed_at,
        )
        for row in rows
    ]


def _stages(connection: Connection, name: str) -> dict[str, str]:
    return {one.package: str(one.stage) for one in _all(connection, name)}
