"""What a worker of the receiver does with an MPPS or IAN request: names instead of identity, one commit, an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from edge_node.deid.announced import announced
from edge_node.domain.announcement import IdentifiedSignal
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.store import announcements
from edge_node.store.database import Database
from edge_node.store.receipt import Receipt, Received

log = structlog.get_logger()

AcceptInstances = Callable[[Sequence[IdentifiedInstance]], list[Receipt | EdgeNodeError]]


class Announcing:
    """Takes announcements down. `keys`: the site key, and after a rotation the one before it.

    As with instances, a study that the ledger knows by its earlier name keeps that name.
    """

    def __init__(self, database: Database, keys: Sequence[bytes], actor: str) -> None:
        self._database = database
        self._keys = keys
        self._actor = actor

    def accept(self, signal: IdentifiedSignal) -> Receipt | EdgeNodeError:
        """The durable fact, or why it is refused; a Retry means that nothing was kept."""
        try:
            named = [announced(signal, key) for key in self._keys]
            with self._database.write() as connection:
                known = (one for one in reversed(named) if announcements.is_known(connection, one))
                said = next(known, named[0])
                announcements.record(
                    connection,
                    said,
                    actor=self._actor,
                    calling_ae=signal.calling_ae,
                    at=signal.received_at,
                    again=signal.again,
                )
            return Receipt(Received.STORED, said.study_keys[0] if said.study_keys else "")
        except EdgeNodeError as error:
            return error
        except Exception as error:
            log.exception("announce.unexpected")
            return Retry("receive.worker-failed", f"a worker failed on an announcement ({type(error).__name__})")


def accepting_both(
    instances: AcceptInstances, signals: Announcing
) -> Callable[[Sequence[IdentifiedInstance | IdentifiedSignal]], list[Receipt | EdgeNodeError]]:
    """One accepting function for instances and for announcements, which never come in one batch; an answer for each."""

    def accept(batch: Sequence[IdentifiedInstance | IdentifiedSignal]) -> list[Receipt | EdgeNodeError]:
        objects = [one for one in batch if isinstance(one, IdentifiedInstance)]
        if objects:
            return instances(objects)
        return [signals.accept(one) for one in batch if isinstance(one, IdentifiedSignal)]

    return accept
