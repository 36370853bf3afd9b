"""The process of the node's own reading list: answers who asks, takes claims, tells subscribers.

A process of its own beside the receiver, which it must never slow. It knows identity as the receiver does, opens of it
what an answer shows, and keeps none of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import structlog
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset

from edge_node.config.schema import Config, Receive
from edge_node.config.secrets import MemoryVault
from edge_node.domain.errors import EdgeNodeError, Retry, Stop
from edge_node.domain.reading_list import Entry
from edge_node.domain.status import Status
from edge_node.domain.study import Role
from edge_node.receive.list_scp import MODALITY_WORKLIST, ListSCP
from edge_node.service import beside
from edge_node.service.dicom_steps import modes_of, result_keys, routes_of
from edge_node.service.list_actions import Actions
from edge_node.service.list_events import Teller
from edge_node.service.node import Node, open_node, spool_path
from edge_node.store import own_list
from edge_node.store.own_list import ListedIdentity, UidOf
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.list_query import CannotSearch, Digests, Opener, Query, answers, identify, projected
from edge_node.worklist.own_list import ups_of
from edge_node.worklist.performers import flagged_in
from edge_node.worklist.uids import result_uid

log = structlog.get_logger()

Answers = Iterator[tuple[Any, Dataset | None]]


def wanted(config: Config) -> bool:
    """Whether the node offers its list."""
    return bool(config.reading_list.port)


def serve(config: Config, vault: MemoryVault | None = None) -> None:
    """Serve until SIGTERM; the receiver is told every few seconds what was asked, for `edge-node status`."""
    stop = beside.begin(config)
    node = open_node(config, Role.DICOM, vault)
    own = OwnList(config, node)
    own.start()
    telling = threading.Thread(target=own.teller.run, args=(stop,), name="list-events", daemon=True)
    try:
        beside.live(config, stop, [telling], {"reading_list": own.facts})
    finally:
        own.stop()
    node.database.close()


class OwnList:
    """The list as it is asked: one object for all associations."""

    def __init__(self, config: Config, node: Node) -> None:
        self._options = config.reading_list
        self._node = node
        self._routes = routes_of(config)
        self._digests = Digests()
        self._opener = Opener(
            lambda key: WriteBackIdentity.of_study(self._identity.study(key)),
            lambda key: WriteBackIdentity.from_envelopes(*node.vault.open(key)),
        )
        self._identity = ListedIdentity(node.database, node.keyring)
        pacs = config.peers.get(config.worklist.pacs)
        self._retrieve_ae = pacs.ae_title if pacs else ""
        self._uid_of = entry_uids(node)
        modes = modes_of(config)
        self._flagged_in = lambda result: flagged_in(modes.permitted(result, reorders=True))
        self._counts = {"asked": 0, "shown": 0, "claimed": 0}
        self._lock = threading.Lock()
        peers = {peer.ae_title.strip(): name for name, peer in config.peers.items()}
        self.teller = Teller(config, node, self.entries)
        self._actions = Actions(node, self.entries, peers, self.teller.wake, lambda: self._count("claimed"))
        self._scp = ListSCP(
            door_of(config),
            spool_path(config),
            {"find": self.find, "get": self.get, "set": self._actions.set, "action": self._actions.act},
        )

    @property
    def port(self) -> int:
        """The port in use."""
        return self._scp.port

    def start(self) -> None:
        """Listen. Raises Stop ``reading-list.cannot-listen``."""
        try:
            self._scp.start()
        except OSError as error:
            options = self._options
            raise Stop(
                "reading-list.cannot-listen",
                f"[reading_list] cannot listen on {options.host}:{options.port}: {os.strerror(error.errno or 0)}",
                hint="set reading_list.port to a free port, or to 0 to do without the list",
                exit_code=69,
            ) from None

    def stop(self) -> None:
        """Take no more questions."""
        self._scp.stop(1.0)

    def facts(self) -> dict[str, Any]:
        """Counts for `edge-node status`."""
        with self._lock:
            refused = sum(row["count"] for row in self._scp.refused.rows())
            return {"port": self.port, **self._counts, "refused": refused}

    def entries(self, *, finished: bool = False) -> list[Entry]:
        """The list as it stands."""
        since = time.time() - self._options.hours * 3600.0
        with self._node.database.read() as connection:
            return own_list.entries(connection, self._uid_of, self._flagged_in, since=since, finished=finished)

    def find(self, event: Any) -> Answers:
        """C-FIND of either view (PS3.4 CC.2.8, K.4.1)."""
        try:
            query = query_of(event, self._options.ae_title)
            entries = self.entries()
            self._digests.keep_only({one.study_key for one in entries})
            self._count("asked")
            found = answers(
                query,
                entries,
                self._routes,
                self._opener,
                self._digests,
                retrieve_ae=self._retrieve_ae,
                search=self._options.search_identity,
            )
            for number, answer in enumerate(found):
                if number >= self._options.most_entries:
                    break
                self._count("shown")
                yield Status.PENDING, answer
        except CannotSearch as error:
            yield _failed(Status.DATA_SET_MISMATCH, f"{error.keyword}: exact numbers only"), None
        except EdgeNodeError as error:
            later = isinstance(error, Retry)
            log.warning("list.failed", code=error.code)
            yield (Status.OUT_OF_RESOURCES if later else Status.CANNOT_UNDERSTAND), None
        except Exception as error:  # whatever a query makes pydicom raise; its words may quote a value
            log.warning("list.failed", code=f"internal.{type(error).__name__}")
            yield Status.CANNOT_UNDERSTAND, None

    def get(self, event: Any) -> tuple[int, Dataset | None]:
        """N-GET of an entry (PS3.4 CC.2.7): the attributes asked for, all when none is named."""
        try:
            uid = str(event.request.RequestedSOPInstanceUID or "")
            entry = next((one for one in self.entries(finished=True) if one.uid == uid), None)
            if entry is None:
                return Status.UPS_UNKNOWN, None
            keys = Dataset()
            for tag in event.attribute_identifiers:
                if dictionary_has_tag(tag):
                    keys.add_new(tag, dictionary_VR(tag), None)
            self._count("asked")
            made = ups_of(entry, self._routes)
            identify(made, entry, keys, self._opener, self._retrieve_ae)
        except EdgeNodeError as error:
            log.warning("list.failed", code=error.code)
            return Status.PROCESSING_FAILURE, None
        except Exception as error:  # as above
            log.warning("list.failed", code=f"internal.{type(error).__name__}")
            return Status.PROCESSING_FAILURE, None
        self._count("shown")
        told = projected(made, keys) if len(keys) else made
        told.SpecificCharacterSet = "ISO_IR 192"
        return Status.SUCCESS, told

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def entry_uids(node: Node) -> UidOf:
    """The UIDs of entries: keyed, the same after every start, no identity needed."""
    key_of = result_keys(node.keys)
    return lambda key_id, study_key, number: result_uid(key_of(key_id), "reading-list", study_key, number)


def door_of(config: Config) -> Receive:
    """Who may ask: the door policy of the receiver with the names and limits of the list."""
    options = config.reading_list
    return Receive(
        host=options.host,
        port=options.port,
        ae_title=options.ae_title,
        calling_ae_titles=options.calling_ae_titles,
        allowed_addresses=options.allowed_addresses,
        max_associations=options.max_associations,
        network_timeout_s=options.timeout_s,
        memory_mb=16,
    )


def query_of(event: Any, ae_title: str) -> Query:
    """The query of a C-FIND. Raises whatever reading its identifier raises.

    The list is the same for every station: a caller that asks for its own gets its own name back.
    """
    keys = deepcopy(event.identifier)
    worklist = str(event.request.AffectedSOPClassUID) == MODALITY_WORKLIST
    station = ae_title
    for step in keys.get("ScheduledProcedureStepSequence") or []:
        asked = str(step.get("ScheduledStationAETitle") or "")
        if asked and not set(asked) & set("*?\\"):
            station = asked
        elif asked:
            step.ScheduledStationAETitle = ae_title
    return Query(keys, worklist, station)


def _failed(status: Status, why: str) -> Dataset:
    made = Dataset()
    made.Status, made.ErrorComment = int(status), why[:64]
    return made
