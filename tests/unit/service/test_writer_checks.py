"""What the doctor says about where results go."""

from __future__ import annotations

import socket
from typing import Any

from edge_node.config.destinations import Hl7
from edge_node.config.schema import Config
from edge_node.config.write_back import Worklist
from edge_node.service.writer_checks import writers


def configured(name: Any, **sections: Any) -> Config:
    return Config(worklist=Worklist(mode="live", writers=[name]), **sections)


def test_writers_that_are_not_named_are_not_looked_at() -> None:
    assert list(writers(Config())) == []


def test_an_hl7_listener_that_answers_is_well_and_one_that_does_not_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = Hl7(host="127.0.0.1", port=listener.getsockname()[1], assigning_authority="MAIN")
        (check,) = writers(configured("hl7", hl7=options))
        assert (check.name, check.result) == ("writer hl7", "ok")
        (check,) = writers(configured("hl7", hl7=options.model_copy(update={"assigning_authority": ""})))
        assert (check.result, check.hint) == ("warn", "set hl7.assigning_authority")
    (check,) = writers(configured("hl7", hl7=options))
    assert check.result == "fail"
    assert check.detail.startswith("worklist.hl7-unavailable")
    (check,) = writers(configured("hl7"))
    assert check.detail.startswith("worklist.no-address")
