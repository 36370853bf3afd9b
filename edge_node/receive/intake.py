"""What a de-identifying worker does with one instance: de-identify, verify, seal, sync, commit - or quarantine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from edge_node.domain.errors import EdgeNodeError, Quarantine
from edge_node.domain.study import Deidentified, IdentifiedInstance
from edge_node.store.intake import Conflict, IntakeStore, OtherPseudonyms, OtherRecipe, Receipt

Deidentify = Callable[[IdentifiedInstance], Deidentified]
PeekStudy = Callable[[IdentifiedInstance], str | None]


class Intake:
    """Takes identified instances in; one per worker process.

    `deidentify` and `peek_study` are given by the service, so that this room need not know the de-identification.
    `digest_key` keys the hash that recognises a quarantined object that is sent again.
    """

    def __init__(self, store: IntakeStore, deidentify: Deidentify, peek_study: PeekStudy, *, digest_key: bytes) -> None:
        self._store = store
        self._deidentify = deidentify
        self._peek_study = peek_study
        self._digest_key = digest_key

    def accept(self, received: IdentifiedInstance) -> Receipt:
        """Make one instance durable; when this returns, Success may be answered.

        Raises Retry when ledger or disk cannot take it now; nothing is kept then and the sender must send again.
        """
        try:
            clean = self._deidentify(received)
        except Quarantine as error:
            return self._quarantine(received, error)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # an unforeseen object must be kept, not refused: sealed, visible, releasable
            wrapped = Quarantine(
                "deid.unexpected",
                f"de-identification failed unexpectedly ({type(error).__name__})",
                hint="report the code; `edge-node study release` tries again after an update",
            )
            return self._quarantine(received, wrapped)
        try:
            return self._store.record(clean, calling_ae=received.calling_ae, received_at=received.received_at)
        except OtherPseudonyms:
            conflict = Quarantine(
                "receive.other-trial",
                "its study is kept under other pseudonyms, those of another trial or of the site; they stay in force",
                hint="let one of [[deid.rules]] name all who send a study; to destroy this: edge-node study discard",
            )
            return self._quarantine(received, conflict)
        except OtherRecipe:
            conflict = Quarantine(
                "receive.other-recipe",
                "the same SOP Instance UID came before and went by another recipe; the first one stays in force",
                hint="let one of [[deid.rules]] name all who send it; to destroy this copy: edge-node study discard",
            )
            return self._quarantine(received, conflict)
        except Conflict:
            conflict = Quarantine(
                "receive.conflicting-duplicate",
                "the same SOP Instance UID was received before with other content; the first one stays in force",
                hint="ask the sender why it changed an instance without a new UID",
            )
            return self._quarantine(received, conflict)

    def _quarantine(self, received: IdentifiedInstance, error: EdgeNodeError) -> Receipt:
        digest = hashlib.blake2b(received.dataset, key=self._digest_key[:64], digest_size=32)
        return self._store.quarantine(received, digest.hexdigest(), error, self._peek_study(received))
