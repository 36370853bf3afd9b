"""Who may send and what: addresses, AE titles, presentation contexts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from ipaddress import ip_address, ip_network

from pydicom.uid import UID, UID_dictionary
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _STORAGE_CLASSES, Verification

from edge_node.config.schema import Receive


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


class Admission:
    """The receiver's door policy, from the `[receive]` section."""

    def __init__(self, config: Receive) -> None:
        self._networks = [ip_network(item, strict=False) for item in config.allowed_addresses]
        self._private = frozenset(config.private_sop_classes)

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
        return [build_context(Verification), *(build_context(UID(a), s) for a, s in wanted.items())]
