"""The reading list, quality alerts and routing: what keeps a configuration from working."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edge_node.config.checks import contradictions
from edge_node.config.lists import QualityAlerts, ReadingList, Routing
from edge_node.config.schema import Config, PeerEntry, Worklist

PEERS = {name: PeerEntry(ae_title="A", host="h", port=104) for name in ("pacs", "ups")}
CALLERS = {"calling_ae_titles": ["VIEWER"], "allowed_addresses": ["10.0.0.0/8"]}


def wrong(**sections: Any) -> list[str]:
    whole = {"peers": PEERS, "worklist": Worklist(mode="live"), **sections}
    return [one.keys[0] for one in contradictions(Config(**whole))]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"port": 0, "host": "0.0.0.0"}, []),
        ({"port": 11113}, []),
        ({"port": 11112}, ["reading_list.port"]),
        ({"port": 8093}, ["reading_list.port"]),
        ({"port": 11113, "host": "0.0.0.0", **CALLERS}, []),
        (
            {"port": 11113, "host": "10.1.1.1"},
            ["reading_list.calling_ae_titles", "reading_list.allowed_addresses"],
        ),
        (
            {"port": 11113, "host": "0.0.0.0", "calling_ae_titles": ["VIEWER"]},
            ["reading_list.allowed_addresses"],
        ),
    ],
)
def test_a_list_has_its_own_port_and_beyond_this_machine_says_who_may_ask(
    options: dict[str, Any], keys: list[str]
) -> None:
    assert wrong(reading_list=ReadingList(**options)) == keys


@pytest.mark.parametrize("mode", ["shadow", "information"])
def test_a_list_is_a_reading_order_and_needs_live_mode(mode: Any) -> None:
    assert wrong(reading_list=ReadingList(port=11113), worklist=Worklist(mode=mode)) == ["reading_list.port"]


def test_a_list_is_off_unless_it_is_given_a_port() -> None:
    assert (Config().reading_list.port, Config().quality_alerts.peer, Config().routing.routes) == (0, "", {})


def test_alerts_need_a_peer_that_is_there() -> None:
    assert wrong(quality_alerts=QualityAlerts(peer="pacs")) == []
    assert wrong(quality_alerts=QualityAlerts(peer="elsewhere")) == ["quality_alerts.peer"]


def test_a_name_for_a_reader_that_no_route_leads_to_is_a_mistake() -> None:
    routes = {"modality:CT body:HEAD": "NEURO"}
    assert wrong(routing=Routing(routes=routes, names={"NEURO": "Neuroradiology"})) == []
    assert wrong(routing=Routing(routes=routes, names={"NEUR0": "Neuroradiology"})) == ["routing.names.NEUR0"]


@pytest.mark.parametrize(
    "options",
    [
        {"routes": {"": "A"}},
        {"routes": {"CT": "A"}},
        {"routes": {"modality:CT,body:HEAD": "A", "station:X": "B"}},
        {"routes": {"modality:CT": "A^B"}},
        {"routes": {"modality:CT": "A" * 17}},
        {"scheme": ""},
        {"names": {"A": "two\nlines"}},
    ],
)
def test_routes_that_could_not_be_written_into_dicom_or_hl7_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Routing(**options)
