"""Identity in memory: what a run of the dicom role does about the one before it, and what waits until it is here again.

What is sealed under the vault key is on the disk as ever, and is noise to everybody once the process is gone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from edge_node import pipeline
from edge_node.config.schema import Config
from edge_node.config.secrets import MemoryVault
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.modes import may_write
from edge_node.domain.study import Role
from edge_node.pipeline import Done
from edge_node.service.dicom_steps import modes_of
from edge_node.service.node import Node, open_node
from edge_node.service.vault_key import Held, in_memory
from edge_node.store import lost
from edge_node.store.lost import Lost
from edge_node.store.tasks import Task
from edge_node.worklist.writers import WRITERS

_GONE = ("vault.destroyed", "store.key-destroyed", "worklist.identity-incomplete")


@dataclass(frozen=True, slots=True)
class Begun:
    """A run of the dicom role: its store, its hold on what it seals, and the vault key where that is in memory."""

    node: Node
    held: Held
    vault: MemoryVault | None = None


def begin(config: Config) -> Begun:
    """Open the store for a run of the dicom role, with a vault key of its own where that is kept in memory.

    Raises Stop as `open_node`, and ``identity.in-use``.
    """
    held = Held(config, alone=in_memory(config))
    if not in_memory(config):
        node = open_node(config, Role.DICOM)
        with node.database.read() as connection:
            was_in_memory = bool(lost.life(connection))
        if was_in_memory:
            held.hold(alone=True)
            with node.database.write() as connection:
                lost.end_memory(connection, node.actor)
            node.database.shred_journal()
            held.hold(alone=False)
        return Begun(node, held)
    vault = MemoryVault.fresh()
    node = open_node(config, Role.DICOM, vault)
    with node.database.write() as connection:
        lost.begin_life(
            connection,
            vault.life,
            node.actor,
            why=asking(),
            writes=any(needs_identity(config, name) for name in config.worklist.writers)
            or bool(config.quality_alerts.peer),
            listed_since=_listed_since(config),
        )
    node.database.shred_journal()
    return Begun(node, held, vault)


def needs_identity(config: Config, writer: str) -> bool:
    """Whether a writer of the site writes anything: in shadow mode none does."""
    return may_write(modes_of(config).of_writer(writer), reorders=WRITERS[writer].reorders)


def _listed_since(config: Config) -> float | None:
    return time.time() - config.reading_list.hours * 3600.0 if config.reading_list.port else None


def asking() -> Retry:
    """A study waits for its identity."""
    return Retry(
        "identity.asking",
        "the identity went with the memory of the dicom role; the PACS is asked for the study again",
    )


def after_identity(node: Node, work: pipeline.Work, patience_s: float = math.inf) -> pipeline.Work:
    """`work` for studies whose identity is here; the others' waits, and says for what. Work that can end well without
    identity is done after `patience_s` whether it is here or not."""

    def asked_first(task: Task) -> Done:
        with node.database.read() as connection:
            study = lost.of(connection, task.study_key)
        if study is not None and time.time() - task.created_at < patience_s:
            raise _waits(study)
        return work(task)

    return asked_first


def with_identity(node: Node, work: pipeline.Work) -> pipeline.Work:
    """`work` that may do without identity: only what fails for want of it waits."""

    def tried_first(task: Task) -> Done:
        try:
            return work(task)
        except Quarantine as error:
            with node.database.read() as connection:
                study = lost.of(connection, task.study_key)
            if study is None or error.code not in _GONE:
                raise
            raise _waits(study) from None

    return tried_first


def _waits(study: Lost) -> Retry:
    return Retry(study.code, study.message, study=study.study_key, after=lost.REST_S, counts=False)
