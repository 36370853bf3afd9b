"""Who may send, and what."""

from __future__ import annotations

import pytest
from pydicom.uid import UID
from pynetdicom import build_context

from edge_node.config.schema import Receive
from edge_node.receive.admission import Admission, storage_sop_classes

PRIVATE = "1.3.46.670589.5.0.1"


@pytest.mark.parametrize(
    ("networks", "address", "admitted"),
    [
        ([], "203.0.113.9", True),
        (["10.1.0.0/16"], "10.1.2.3", True),
        (["10.1.0.0/16"], "10.2.2.3", False),
        (["10.1.2.3"], "10.1.2.3", True),
        (["10.1.0.0/16"], "::ffff:10.1.2.3", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["10.1.0.0/16"], "not an address", False),
    ],
)
def test_addresses_are_admitted_by_network(networks: list[str], address: str, admitted: bool) -> None:
    assert Admission(Receive(allowed_addresses=networks)).admits_address(address) is admitted


def test_every_storage_class_is_accepted_in_whatever_syntax_is_proposed() -> None:
    proposed = [build_context(UID("1.2.840.10008.5.1.4.1.1.2"), ["1.2.840.10008.1.2.4.90", "1.2.3.4.5.6"])]
    supported = Admission(Receive()).contexts_for(proposed)
    [ct] = [c for c in supported if c.abstract_syntax == "1.2.840.10008.5.1.4.1.1.2"]
    assert [str(s) for s in ct.transfer_syntax] == ["1.2.840.10008.1.2.4.90", "1.2.3.4.5.6"]


def test_a_private_class_is_accepted_only_when_the_site_says_so() -> None:
    proposed = [build_context(PRIVATE, ["1.2.840.10008.1.2"])]

    def accepts(config: Receive) -> bool:
        return PRIVATE in {str(c.abstract_syntax) for c in Admission(config).contexts_for(proposed)}

    assert not accepts(Receive())
    assert accepts(Receive(private_sop_classes=[PRIVATE]))


def test_query_and_commitment_classes_are_not_storage() -> None:
    classes = storage_sop_classes()
    assert "1.2.840.10008.1.20.1" not in classes  # Storage Commitment Push Model
    assert "1.2.840.10008.5.1.4.1.2.2.1" not in classes  # Study Root FIND
    assert "1.2.840.10008.1.3.10" not in classes  # Media Storage Directory
    assert len(classes) > 140
