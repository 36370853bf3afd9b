"""What readers and watchers do with the node's own reading list: claim, finish, subscribe (PS3.4 CC.2.1 to CC.2.3).

A claim is kept as a keyed hash of the Transaction UID, what a performer writes into an entry is not kept at all.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog
from pydicom.dataset import Dataset

from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.reading_list import Entry, ReadState
from edge_node.domain.status import Status
from edge_node.service.node import Node
from edge_node.store import audit, own_list, readers
from edge_node.store.own_list import WHOLE_LIST
from edge_node.store.readers import Reading

log = structlog.get_logger()

SOURCE = "reading_list"
GLOBAL = "1.2.840.10008.5.1.4.34.5"  # UPS Global Subscription SOP Instance (PS3.4 CC.2.3)
CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = range(1, 6)  # Action Type ID, PS3.4 Table CC.2.1-1 ff.
_MAY_BE_SET_BY_US_ALONE = ("ScheduledProcedureStepPriority", "ExpectedCompletionDateTime", "ProcedureStepState")


class Listed(Protocol):
    """The list as it stands, with finished entries if they are wanted."""

    def __call__(self, *, finished: bool = False) -> list[Entry]: ...


class Actions:
    """N-ACTION and N-SET. `peers` are the AE titles that can be told; `wake` is called when there is news to tell."""

    def __init__(
        self,
        node: Node,
        entries: Listed,
        peers: Mapping[str, str],
        wake: Callable[[], None],
        claimed: Callable[[], None],
    ) -> None:
        self._node = node
        self._entries = entries
        self._peers = peers
        self._wake = wake
        self._claimed = claimed
        self._key = hmac.digest(node.keys.key("pseudonym"), b"edge-node list lock", "sha256")

    def act(self, event: Any) -> tuple[int, Dataset | None]:
        """N-ACTION; the status by name."""
        try:
            status = self._act(
                int(event.request.ActionTypeID or 0),
                str(event.request.RequestedSOPInstanceUID or ""),
                event.action_information,
                event.assoc.sender,
            )
        except EdgeNodeError as error:
            log.warning("list.failed", code=error.code)
            status = Status.PROCESSING_FAILURE
        except Exception as error:  # whatever a peer's data set makes pydicom raise
            log.warning("list.failed", code=f"internal.{type(error).__name__}")
            status = Status.PROCESSING_FAILURE
        return status, None

    def set(self, event: Any) -> tuple[int, Dataset | None]:
        """N-SET (PS3.4 CC.2.6): whoever claimed the entry may report on it; nothing of that is kept."""
        try:
            entry = self._entry(str(event.request.RequestedSOPInstanceUID or ""))
            changes = event.modification_list
        except EdgeNodeError as error:
            log.warning("list.failed", code=error.code)
            return Status.PROCESSING_FAILURE, None
        except Exception as error:  # as above
            log.warning("list.failed", code=f"internal.{type(error).__name__}")
            return Status.PROCESSING_FAILURE, None
        if entry is None:
            return Status.UPS_UNKNOWN, None
        if entry.state.final:
            return Status.UPS_NO_LONGER_UPDATABLE, None
        if entry.state is ReadState.SCHEDULED or not self._holds(entry, str(changes.get("TransactionUID") or "")):
            return Status.UPS_WRONG_TRANSACTION_UID, None
        if any(keyword in changes for keyword in _MAY_BE_SET_BY_US_ALONE):
            return Status.INVALID_ATTRIBUTE_VALUE, None
        return Status.WARNING_ATTRIBUTES, None

    def _act(self, action: int, uid: str, information: Dataset, caller: str) -> Status:
        if action in (SUBSCRIBE, UNSUBSCRIBE, SUSPEND):
            return self._subscription(action, uid, str(information.get("ReceivingAE") or "").strip())
        entry = self._entry(uid)
        if entry is None:
            return Status.UPS_UNKNOWN
        if action == CHANGE_STATE:
            asked = str(information.get("ProcedureStepState") or "")
            return self._change(entry, asked, str(information.get("TransactionUID") or ""), caller)
        if action == REQUEST_CANCEL:
            # Only a reader ends the reading of a study: nothing takes it off the list unread.
            return {
                ReadState.CANCELED: Status.UPS_ALREADY_CANCELED,
                ReadState.COMPLETED: Status.UPS_ALREADY_COMPLETED_FAILURE,
            }.get(entry.state, Status.UPS_PERFORMER_UNREACHABLE)
        return Status.NO_SUCH_ACTION

    def _change(self, entry: Entry, asked: str, transaction: str, caller: str) -> Status:
        if asked not in [str(one) for one in ReadState]:
            return Status.INVALID_ATTRIBUTE_VALUE
        state = ReadState(asked)
        if state is ReadState.SCHEDULED:
            return Status.UPS_SCHEDULED_ONLY_BY_CREATE
        if not transaction:
            return Status.UPS_WRONG_TRANSACTION_UID
        if entry.state is state and state.final:
            completed = state is ReadState.COMPLETED
            return Status.UPS_ALREADY_COMPLETED if completed else Status.UPS_ALREADY_CANCELED
        if entry.state.final:
            return Status.UPS_NO_LONGER_UPDATABLE
        if state is ReadState.IN_PROGRESS and entry.state is state:
            return Status.UPS_ALREADY_IN_PROGRESS
        if state.final and entry.state is ReadState.SCHEDULED:
            return Status.UPS_NOT_IN_PROGRESS
        if state.final and not self._holds(entry, transaction):
            return Status.UPS_WRONG_TRANSACTION_UID
        with self._node.database.write() as connection:
            changed = own_list.change_state(
                connection, entry, state, self._lock_of(transaction), actor=f"{self._node.actor}/{caller}"
            )
            if changed:  # results that come now are late, whichever writer tells them
                done = Reading.REPORTED if state is ReadState.COMPLETED else Reading.CLAIMED
                readers.note(connection, entry.study_key, done, SOURCE, time.time())
        if not changed:
            return Status.UPS_ALREADY_IN_PROGRESS
        self._claimed()
        self._wake()
        return Status.SUCCESS

    def _subscription(self, action: int, uid: str, receiver: str) -> Status:
        if receiver not in self._peers:
            return Status.UPS_UNKNOWN_RECEIVER
        whole = uid == GLOBAL
        if not whole and (action == SUSPEND or self._entry(uid) is None):
            return Status.UPS_UNKNOWN
        with self._node.database.write() as connection:
            if action == SUBSCRIBE:
                own_list.subscribe(connection, receiver, WHOLE_LIST if whole else uid)
            elif action == UNSUBSCRIBE:
                own_list.unsubscribe(connection, receiver, uid, all_of_it=whole)
            else:
                own_list.suspend(connection, receiver)
            detail: dict[str, object] = {"receiver": receiver, "whole": whole, "action": action}
            audit.append(connection, self._node.actor, "list.subscription", "", detail)
        self._wake()
        return Status.SUCCESS

    def _entry(self, uid: str) -> Entry | None:
        return next((one for one in self._entries(finished=True) if one.uid == uid), None)

    def _holds(self, entry: Entry, transaction: str) -> bool:
        return hmac.compare_digest(entry.lock, self._lock_of(transaction))

    def _lock_of(self, transaction: str) -> str:
        return hmac.digest(self._key, transaction.encode(), hashlib.sha256).hex()
