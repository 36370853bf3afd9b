"""What a de-identifying worker does with one instance: de-identify, verify, seal, sync, commit - or quarantine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import structlog

from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.domain.study import Deidentified, IdentifiedInstance
from edge_node.store.intake import IntakeStore
from edge_node.store.receipt import Answer, Clean, Conflict, OtherPseudonyms, OtherRecipe, Receipt

log = structlog.get_logger()

Deidentify = Callable[[IdentifiedInstance], Deidentified]
PeekStudy = Callable[[IdentifiedInstance], str | None]
NameInstance = Callable[[IdentifiedInstance], str]


class Intake:
    """Takes identified instances in; one per worker process.

    `deidentify` and `peek_study` are given by the service, so that this room need not know the de-identification.
    `digest_key` keys the hash that recognises a quarantined object that is sent again; `name_instance` names an object
    as announcements do.
    """

    def __init__(
        self,
        store: IntakeStore,
        deidentify: Deidentify,
        peek_study: PeekStudy,
        *,
        digest_key: bytes,
        name_instance: NameInstance = lambda _instance: "",
    ) -> None:
        self._store = store
        self._deidentify = deidentify
        self._peek_study = peek_study
        self._digest_key = digest_key
        self._name_instance = name_instance

    def accept_all(self, received: Sequence[IdentifiedInstance]) -> list[Receipt | EdgeNodeError]:
        """Make instances durable with one sync and one commit; an answer for each, in order.

        A Receipt may be acknowledged with Success. With a Retry (ledger or disk cannot take it now) nothing of that
        instance is kept and the sender must send again.
        """
        answers: list[Receipt | EdgeNodeError | None] = [None] * len(received)
        clean: list[tuple[int, Clean]] = []
        for number, one in enumerate(received):
            try:
                clean.append((number, Clean(self._deidentify(one), one.calling_ae, one.received_at)))
            except Quarantine as error:
                answers[number] = self._quarantine(one, error)
            except (MemoryError, OSError) as error:
                answers[number] = _unlucky(error)
            except Exception as error:  # an unforeseen object must be kept, not refused: sealed, visible, releasable
                wrapped = Quarantine(
                    "deid.unexpected",
                    f"de-identification failed unexpectedly ({type(error).__name__})",
                    hint="report the code; `edge-node quarantine release` tries again after an update",
                )
                answers[number] = self._quarantine(one, wrapped)
        for number, answer in self._record(clean):
            if isinstance(answer, Conflict):
                answers[number] = self._quarantine(received[number], _reason(answer))
            else:
                answers[number] = answer
        return [answer or Retry("receive.worker-failed", "an instance was not answered") for answer in answers]

    def _record(self, clean: list[tuple[int, Clean]]) -> list[tuple[int, Answer | EdgeNodeError]]:
        """Positions with their answers."""
        outcomes: Sequence[Answer | EdgeNodeError]
        try:
            outcomes = self._store.record_all([one for _, one in clean])
        except EdgeNodeError as error:
            outcomes = [error] * len(clean)
        except Exception as error:
            if len(clean) > 1:  # one odd object must not fail its neighbours
                return [answer for pair in clean for answer in self._record([pair])]
            log.exception("intake.unexpected")
            outcomes = [_unlucky(error)] * len(clean)
        return [(number, outcome) for (number, _), outcome in zip(clean, outcomes, strict=True)]

    def _quarantine(self, received: IdentifiedInstance, error: EdgeNodeError) -> Receipt | EdgeNodeError:
        digest = hashlib.blake2b(key=self._digest_key[:64], digest_size=32)
        try:
            for chunk in received.source.chunks(0, received.source.size):
                digest.update(chunk)
            return self._store.quarantine(
                received, digest.hexdigest(), error, self._peek_study(received), self._name_instance(received)
            )
        except EdgeNodeError as refused:
            return refused.with_traceback(None)  # its frames hold the object
        except OSError as broken:
            return _unlucky(broken)


def _reason(conflict: Conflict) -> Quarantine:
    """Why an instance is held that cannot be kept beside what is kept."""
    if isinstance(conflict, OtherPseudonyms):
        return Quarantine(
            "receive.other-trial",
            "its study is kept under other pseudonyms, those of another trial or of the site; they stay in force",
            hint="let one of [[deid.rules]] name all who send a study; to destroy this: edge-node quarantine discard",
        )
    if isinstance(conflict, OtherRecipe):
        return Quarantine(
            "receive.other-recipe",
            "the same SOP Instance UID came before and went by another recipe; the first one stays in force",
            hint="let one of [[deid.rules]] name all who send it; to destroy this copy: edge-node quarantine discard",
        )
    return Quarantine(
        "receive.conflicting-duplicate",
        "the same SOP Instance UID was received before with other content; the first one stays in force",
        hint="ask the sender why it changed an instance without a new UID",
    )


def _unlucky(error: Exception) -> Retry:
    return Retry("receive.worker-failed", f"a worker failed on one instance ({type(error).__name__})")
