"""The proof that the archive keeps the evidence: storage commitment, else read back, before identity is destroyed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from edge_node import pipeline
from edge_node.config.schema import Config
from edge_node.domain.commitment import CommitmentReport, CommitmentState, StoredReference
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.modes import may_write
from edge_node.domain.worklist import Peer
from edge_node.pipeline import Done
from edge_node.service.dicom_steps import EVIDENCE, modes_of, order_of, result_keys, site_of
from edge_node.service.node import Node
from edge_node.store import commitments, readers, studies
from edge_node.store.commitments import Asked
from edge_node.store.tasks import Task
from edge_node.worklist.commitment import Archive, archive_at
from edge_node.worklist.header import CLASSES, series_uid
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.statuses import Answer
from edge_node.worklist.uids import result_uid
from edge_node.worklist.write_evidence import EvidenceWriter
from edge_node.worklist.writer import configured

ASKS = 2  # an archive that stays silent is asked so often
RESENDS = 2  # what it does not commit is sent again so often
READS = 4  # what is not found is looked for so often: an archive may index later than it answers
FIRST_LINGER_S = 5.0  # how long the association of a request stays open for the answer; later requests wait longer
LOOK_AGAIN_S = 60.0  # the receiver wakes this work when an answer comes; this is for an answer that met a claimed row


def commits(config: Config) -> bool:
    """Whether this site's evidence is to be proven."""
    return EVIDENCE in config.worklist.writers and config.worklist.commitment != "off"


def note_commitment(node: Node) -> Callable[[CommitmentReport], bool]:
    """Records the archive's answers, whichever process hears them; False for a transaction that is not ours."""

    def note(report: CommitmentReport) -> bool:
        with node.database.write() as connection:
            return commitments.answer(connection, report, time.time())

    return note


def commitment_work(node: Node) -> pipeline.Work:
    """Prove that the archive keeps the evidence of a study as it stands at one revision."""
    return _Proof(node).work


class _Proof:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._options = node.config.worklist
        self._site = site_of(node.config)
        self._modes = modes_of(node.config)
        self._key_of = result_keys(node.keys)
        self._heard = note_commitment(node)

    def work(self, task: Task) -> Done:
        """Ends with the outcome, with Retry while an answer is awaited, with Quarantine when a human must look."""
        mode = self._modes.of_writer(EVIDENCE)
        if not may_write(mode, reorders=False):
            return Done(f"worklist.{mode}", {"writer": commitments.TARGET})  # proving may mean to send again
        with self._node.database.read() as connection:
            written = studies.written(connection, task.study_key, EVIDENCE)
            # What stands may be of an earlier revision, and the archive may have said then that it keeps it.
            told = max((revision for revision, _, _ in written if revision <= task.revision), default=task.revision)
            asked = commitments.asked(connection, task.study_key, task.revision)
            before = commitments.asked(connection, task.study_key, told) if told != task.revision else []
        objects = [(kind, uid) for revision, kind, uid in written if revision == told]
        proven = next((one for one in [*asked, *before] if one.state is CommitmentState.COMMITTED), None)
        if proven is not None:
            return self._outcome("committed", objects, via=proven.via, requests=len(asked))
        # A human who retries begins anew: what was tried before counts no more.
        tried = [one for one in asked if one.asked_at >= task.created_at]
        last = tried[-1] if tried else None
        if last is not None and last.state is CommitmentState.FAILED:
            failed = [one for one in tried if one.state is CommitmentState.FAILED]
            if len(failed) > RESENDS:
                raise self._not_committed(last)
            self._send_again(task, told)
        elif last is not None and last.state is CommitmentState.ASKED:
            left = last.asked_at + self._options.commitment_wait_s - time.time()
            if left > 0:
                raise self._awaited(left)
        silent = [one for one in tried if one.state is CommitmentState.ASKED]
        if len(silent) >= ASKS and self._options.commitment == "required":
            raise Quarantine(
                "worklist.not-committed",
                f"{self._pacs.ae_title} did not answer {len(silent)} requests for storage commitment",
                hint="ask the archive's administrator to send the reports to our AE title, then edge-node study retry",
                study=task.study_key,
            )
        try:
            with archive_at(self._pacs, self._site.calling_ae, self._site.timeout_s, committed=self._heard) as archive:
                if archive.commits and len(silent) < ASKS:
                    return self._ask(archive, task, told, objects, asked)
                return self._read_back(archive, task, told, objects)
        except Quarantine as error:
            if error.code == "worklist.pacs-refused" and self._options.commitment == "auto":
                return self._outcome("unproven", objects)  # it takes images, and nothing that could be asked
            raise

    @property
    def _pacs(self) -> Peer:
        return configured(self._site.pacs, "pacs")

    def _ask(self, archive: Archive, task: Task, told: int, objects: list[tuple[str, str]], asked: list[Asked]) -> Done:
        transaction = result_uid(self._key(task), "commitment", task.study_key, task.revision, len(asked) + 1)
        references = tuple(StoredReference(CLASSES[kind], uid) for kind, uid in objects)
        with self._node.database.write() as connection:
            commitments.put(connection, transaction, task.study_key, task.revision, references, time.time())
        status = archive.request(transaction, references)
        if status.answer is not Answer.DONE:
            with self._node.database.write() as connection:
                commitments.unheard(connection, transaction)
            if status.answer is Answer.REFUSED and archive.line.open:
                return self._read_back(archive, task, told, objects)
            raise Retry(
                "worklist.pacs-unavailable",
                f"{self._pacs.ae_title} answers {status.name} to a request for storage commitment",
                hint="edge-node echo pacs",
            )

        def answered() -> bool:
            with self._node.database.read() as connection:
                now = commitments.asked(connection, task.study_key, task.revision)
            return now[-1].state is not CommitmentState.ASKED

        archive.linger(answered, FIRST_LINGER_S if not asked else self._site.timeout_s)
        raise self._awaited(0.0 if answered() else self._options.commitment_wait_s)

    def _awaited(self, left: float) -> Retry:
        return Retry(
            "worklist.commitment-awaited",
            f"{self._pacs.ae_title} has not said yet whether it keeps the evidence",
            hint="nothing to do; it is asked again, then read back",
            after=min(left, LOOK_AGAIN_S),
            counts=False,
        )

    def _read_back(self, archive: Archive, task: Task, told: int, objects: list[tuple[str, str]]) -> Done:
        """An archive that does not commit: look whether it lists what it took."""
        if self._options.commitment == "required":
            raise Quarantine(
                "worklist.commitment-refused",
                f"{self._pacs.ae_title} takes no request for storage commitment, and the site requires it",
                hint="set worklist.commitment = auto to read back instead, or ask the archive's administrator",
                study=task.study_key,
            )
        if not archive.answers_queries:
            return self._outcome("unproven", objects)
        identity = WriteBackIdentity.from_envelopes(*self._node.vault.open(task.study_key))
        key, study_uid = self._key(task), identity.study_uid
        wanted = [(series_uid(key, kind, study_uid), StoredReference(CLASSES[kind], uid)) for kind, uid in objects]
        status, gone = archive.missing(study_uid, wanted)
        if status.answer is Answer.REFUSED:
            return self._outcome("unproven", objects)
        if status.answer is Answer.DONE and not gone:
            return self._outcome("read-back", objects)
        if status.answer is Answer.DONE and task.failures >= READS:
            raise Quarantine(
                "worklist.not-committed",
                f"{self._pacs.ae_title} took {len(gone)} objects of the result and does not list them",
                hint="look for the result in the archive, then edge-node study retry STUDY",
                study=task.study_key,
            )
        if status.answer is Answer.DONE and task.failures:
            self._send_again(task, told)
        raise Retry(
            "worklist.read-back",
            f"{self._pacs.ae_title} does not list {len(gone)} objects of the result yet ({status.name})",
            hint="edge-node echo pacs",
        )

    def _send_again(self, task: Task, told: int) -> None:
        """What was told under revision `told`, byte by byte."""
        with self._node.database.read() as connection:
            reading = readers.of(connection, task.study_key)
        order = order_of(self._node, self._modes, self._key_of, replace(task, revision=told), EVIDENCE, reading)
        EvidenceWriter(self._site).write(order)

    def _key(self, task: Task) -> bytes:
        with self._node.database.read() as connection:
            row = studies.get(connection, task.study_key)._mapping
        return self._key_of(str(row["site_key_id"]))

    def _not_committed(self, last: Asked) -> Quarantine:
        reasons = ", ".join(sorted(set(last.failures.values())))
        return Quarantine(
            "worklist.not-committed",
            f"{self._pacs.ae_title} does not commit {len(last.failures)} objects of the result ({reasons}), though they"
            f" were sent {RESENDS} times again",
            hint="ask the archive's administrator, then edge-node study retry STUDY",
        )

    def _outcome(self, how: str, objects: list[tuple[str, str]], **more: object) -> Done:
        return Done(
            f"commitment.{how}",
            {"destination": self._pacs.ae_title, "objects": [f"{kind} {uid}" for kind, uid in objects], **more},
        )
