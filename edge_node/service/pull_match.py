"""Which of an archive's answers fit what was asked: archives differ in what they match, and none may give us another
patient."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.pull import Kind, Match, Wanted

log = structlog.get_logger()

MOST_MATCHES = 100_000


class Matches:
    """The answers to one search. `where` names the archive in messages."""

    def __init__(self, wanted: Wanted, where: str) -> None:
        self._wanted = wanted
        self._where = where
        self._seen: set[str] = set()
        self._issuers: set[str] = set()
        self._fitting: dict[str, tuple[str, Match]] = {}
        self.answers = 0

    def add(
        self,
        uid: str,
        value: str,
        *,
        issuer: str,
        modalities: Collection[str],
        instances: str,
        date: str = "",
        description: str = "",
    ) -> bool:
        """Take an answer: Study Instance UID, what it says of the attribute asked for, Issuer of Patient ID, Modalities
        in Study, Number of Study Related Instances, Study Date and Description ("" where it says nothing).

        Returns whether the study was not answered before. Raises Retry ``pull.query-failed`` beyond MOST_MATCHES.
        """
        self.answers += 1
        if self.answers > MOST_MATCHES:
            raise Retry("pull.query-failed", f"{self._where} answers more than {MOST_MATCHES} studies")
        uid, wanted, fresh = uid.strip(), self._wanted, uid.strip() not in self._seen
        if not uid:
            return False
        self._seen.add(uid)
        if value.strip() != wanted.value.strip():
            return fresh
        self._issuers.add(issuer.strip())
        if not wanted.modality or not set(modalities) - {""} or wanted.modality in modalities:
            count, made = int(instances) if instances.isdecimal() else 0, tuple(sorted(set(modalities) - {""}))
            self._fitting[uid] = issuer.strip(), Match(uid, count, date.strip(), made, description.strip())
        return fresh

    def fitting(self) -> list[Match]:
        """Those that fit. Raises Quarantine ``pull.patient-ambiguous``: the same Patient ID is another patient's too
        where another issuer gave it."""
        asked = self._wanted.issuer.strip()
        if self._wanted.kind is not Kind.PRIORS or (not asked and len(self._issuers - {""}) < 2):
            return [match for _, match in self._fitting.values()]
        if not asked:
            raise Quarantine(
                "pull.patient-ambiguous",
                f"{self._where} has patients of {len(self._issuers - {''})} issuers with this Patient ID",
                hint="give the issuer behind a tab",
            )
        if asked not in self._issuers and "" in self._issuers:
            raise Quarantine(
                "pull.patient-ambiguous",
                f"{self._where} does not say which issuer gave this Patient ID",
                hint="give the Patient ID without its issuer, if the PACS has but one",
            )
        right = [match for issuer, match in self._fitting.values() if issuer == asked]
        if left := len(self._fitting) - len(right):
            log.info("pull.other-issuer", count=left)
        return right
