"""Who may send, what, how many at once and how fast: addresses, AE titles, presentation contexts, places."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from functools import cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from pydicom.uid import UID, UID_dictionary
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _STORAGE_CLASSES, Verification

from edge_node.config.schema import Receive
from edge_node.receive.announce import SYNTAXES


@cache
def storage_sop_classes() -> frozenset[str]:
    """Every storage SOP Class UID that pynetdicom or pydicom's dictionary knows, retired ones included."""
    known = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class"
        and "Storage" in name
        and not any(word in name for word in ("Commitment", "Directory", "Management", "Media", "Service"))
    }
    return frozenset(known | set(_STORAGE_CLASSES.values()))


class Rejection(NamedTuple):
    """An A-ASSOCIATE-RJ by name: `reason` for logs and counters, the rest as PS3.8 9.3.4 numbers it."""

    reason: str
    result: int
    source: int
    diagnostic: int


_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _PRESENTATION = 1, 3
CALLED_AE = Rejection("called-ae-title-not-recognized", _PERMANENT, _SERVICE_USER, 7)
CALLING_AE = Rejection("calling-ae-title-not-recognized", _PERMANENT, _SERVICE_USER, 3)
TOO_MANY = Rejection("too-many-associations", _TRANSIENT, _PRESENTATION, 2)
TOO_MANY_OF_SENDER = Rejection("too-many-associations-of-sender", _TRANSIENT, _PRESENTATION, 2)
DISK_LOW = Rejection("disk-low", _TRANSIENT, _PRESENTATION, 1)
DRAINING = Rejection("shutting-down", _TRANSIENT, _SERVICE_USER, 1)


class Places:
    """Who holds how many associations. The last eighth of all places is for senders that hold none."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one or most
        self._kept_back = most // 8
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, sender: str) -> Rejection | None:
        """Take a place for `sender`, or say why there is none."""
        with self._lock:
            total, own = sum(self._held.values()), self._held.get(sender, 0)
            if total >= self._most:
                return TOO_MANY
            if own >= self._most_of_one or (own and total >= self._most - self._kept_back):
                return TOO_MANY_OF_SENDER
            self._held[sender] = own + 1
            return None

    def leave(self, sender: str) -> None:
        with self._lock:
            left = self._held.get(sender, 1) - 1
            if left:
                self._held[sender] = left
            else:
                self._held.pop(sender, None)


class Pace:
    """Bytes a second of each sender; whoever is too fast waits for his answer, and so sends no faster."""

    BURST_S = 2.0
    LONGEST_WAIT_S = 10.0

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait_s(self, sender: str, size: int, now: float) -> float:
        """Seconds to wait before an object of `size` bytes is answered; 0 when no limit is set."""
        if not self._rate:
            return 0.0
        with self._lock:
            for idle in [name for name, at in self._free_at.items() if at < now - self.BURST_S]:
                del self._free_at[idle]
            free_at = max(self._free_at.get(sender, 0.0), now - self.BURST_S) + size / self._rate
            self._free_at[sender] = min(free_at, now + self.LONGEST_WAIT_S)
            return max(0.0, self._free_at[sender] - now)


class Admission:
    """The receiver's door policy, from the `[receive]` section; `further` called AE titles are answered too.

    `signals` are the SOP classes that announce studies and are taken.
    """

    def __init__(self, config: Receive, further: Collection[str] = (), signals: Collection[str] = ()) -> None:
        self._networks = [ip_network(item, strict=False) for item in config.allowed_addresses]
        self._private = frozenset(config.private_sop_classes)
        self._signals = frozenset(signals)
        titles = (config.ae_title, *further) if config.require_called_ae_title else ()
        self._called = frozenset(title.strip() for title in titles)
        self._calling = frozenset(title.strip() for title in config.calling_ae_titles)

    def admits_address(self, address: str) -> bool:
        """Whether a host may connect at all (an empty list admits every host)."""
        if not self._networks:
            return True
        try:
            host = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(host, "ipv4_mapped", None) or host
        return any(mapped in network for network in self._networks)

    def rejects_titles(self, called: str, calling: str) -> Rejection | None:
        """Why an association between these AE titles is rejected, or None."""
        if self._called and called.strip() not in self._called:
            return CALLED_AE
        if self._calling and calling.strip() not in self._calling:
            return CALLING_AE
        return None

    def contexts_for(self, proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
        """The contexts to support for one association: Verification, and every storage class as it is sent.

        Whatever transfer syntaxes the sender proposes are accepted (PS3.8 9.3.2.2): the node stores as sent.
        """
        known, wanted = storage_sop_classes(), dict[str, list[str]]()
        for context in proposed:
            abstract = str(context.abstract_syntax)
            if abstract in known or abstract in self._private:
                syntaxes = wanted.setdefault(abstract, [])
                syntaxes += [str(s) for s in context.transfer_syntax if str(s) not in syntaxes]
            elif abstract in self._signals:
                wanted[abstract] = list(SYNTAXES)
        return [build_context(Verification), *(build_context(UID(a), s) for a, s in wanted.items())]
