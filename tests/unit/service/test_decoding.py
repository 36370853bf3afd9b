"""The compute role decodes what has come of a study before the study is complete."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from edge_node.domain.study import CleanStudy, Role
from edge_node.service import intake_worker
from edge_node.service.decoding import Decoding
from edge_node.service.node import open_node
from edge_node.store import studies
from edge_node.triage.ahead import Ahead
from tests.unit.deid.objects import encoded, instance_of
from tests.unit.service.site import Site, image, site

__all__ = ["site"]


def take(site: Site, one: Dataset) -> str:
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.compress(RLELossless, generate_instance_uid=False)
    sent = instance_of(encoded(one), str(RLELossless), str(one.SOPClassUID), str(one.SOPInstanceUID))
    [receipt] = intake_worker.make_intake(site.config)([replace(sent, received_at=time.time())])
    return str(getattr(receipt, "study_key", receipt))


@pytest.fixture
def ahead() -> Iterator[Ahead]:
    made = Ahead(1 << 20, bool, processes=1)
    yield made
    made.close()


def test_each_new_image_is_decoded_once_until_the_study_is_settled(site: Site, ahead: Ahead) -> None:
    key = take(site, image(1))
    node = open_node(site.config, Role.COMPUTE)
    decoding = Decoding(node, ahead)
    assert decoding.look() == 1
    assert decoding.look() == 0
    take(site, image(2))
    assert decoding.look() == 1
    with node.database.write() as connection:
        [coming] = studies.unsettled(connection)
        studies.settle(connection, coming, reason="quiet", complete=True, at=1.0)
    assert decoding.look() == 0
    with ahead.lent(key) as ready:
        assert [ready(one) is None for one in node.clean.study(key).objects] == [False, False]


def test_studies_that_need_no_codec_are_not_even_listed(
    site: Site, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.take(image(1), image(2))
    decoding = Decoding(open_node(site.config, Role.COMPUTE), ahead)
    monkeypatch.setattr(ahead, "prepare", lambda _study: pytest.fail("there is nothing to decode"))
    assert decoding.look() == 0


def test_what_ails_one_study_takes_no_head_start_from_the_others(
    site: Site, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {take(site, image(1, study=number)) for number in (1, 2, 3)}
    decoding = Decoding(open_node(site.config, Role.COMPUTE), ahead)
    begun: list[str] = []

    def prepare(study: CleanStudy) -> int:
        begun.append(study.study_key)
        if len(begun) == 1:
            raise OSError("the first one cannot be read")
        return len(study.objects)

    monkeypatch.setattr(ahead, "prepare", prepare)
    assert decoding.look() == 2
    assert set(begun) == keys
    assert decoding.look() == 0, "what came is looked at once"
    assert len(begun) == 3
