"""Modalities that say when they are done (MPPS) and archives that list what they have (IAN), on real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, InstanceAvailabilityNotification, ModalityPerformedProcedureStep
from sqlalchemy import select

from edge_node.domain.announcement import Command, IdentifiedSignal
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.status import ErrorId, Status
from edge_node.service import intake_worker
from edge_node.store import retention, tables
from tests.integration.announcing_hospital import STEP, STUDY, Hospital, encoded, reference
from tests.unit.service.site import Site, image, needles_in, site

__all__ = ["site"]


@pytest.fixture
def hospital(site: Site) -> Iterator[Hospital]:
    one = Hospital(site, quiet_s=60, quiet_by_modality={}, notice_s=0.2)
    yield one
    one.close()


def test_a_completed_step_whose_images_all_came_settles_at_once(hospital: Hospital) -> None:
    assert hospital.create().Status == Status.SUCCESS
    hospital.send(1, 2)
    assert hospital.settle()[0] == "RECEIVING"
    assert hospital.set("COMPLETED", 1, 2).Status == Status.SUCCESS
    assert hospital.settle() == ("SETTLED", "step completed, all 2 announced came", True)
    [done] = hospital.site.audited("settle.done")
    assert (done.detail["announced"], done.detail["missing"], done.detail["steps"]) == (2, 0, 1)
    assert [e.detail["status"] for e in hospital.site.audited("study.announced")] == ["IN PROGRESS", "COMPLETED"]


def test_a_step_announced_before_any_image_waits_for_all_of_them(hospital: Hospital) -> None:
    hospital.create()
    hospital.set("COMPLETED", 1, 2, 3)
    with hospital.compute.database.read() as connection:
        assert connection.execute(select(tables.study)).all() == []
    hospital.send(1, 2)
    assert hospital.settle()[0] == "RECEIVING"
    hospital.send(3)
    assert hospital.settle() == ("SETTLED", "step completed, all 3 announced came", True)


def test_nothing_that_identifies_anyone_is_kept_in_the_clear(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1)
    hospital.set("COMPLETED", 1)
    hospital.notify(1)
    assert needles_in(hospital.config.node.data_dir) == []


def test_missing_images_are_waited_for_up_to_the_policys_limit_and_no_longer(site: Site) -> None:
    hospital = Hospital(site, quiet_s=0.1, quiet_by_modality={}, missing_s=1.0)
    try:
        hospital.create()
        hospital.send(1, 2)
        hospital.set("COMPLETED", 1, 2, 3)
        time.sleep(0.3)
        assert hospital.settle()[0] == "RECEIVING"  # quiet, but one is missing
        time.sleep(0.8)
        state, reason, complete = hospital.settle()
        assert (state, complete) == ("SETTLED", False)
        assert reason.startswith("1 of 3 announced missing after 1 s")
        hospital.send(3)
        assert hospital.settle() == ("SETTLED", "step completed, all 3 announced came", True)
    finally:
        hospital.close()


def test_what_was_announced_and_is_held_in_quarantine_is_not_waited_for(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1)
    broken = image(2)
    broken.Rows = 4000  # more pixels than there are
    with hospital.association(CTImageStorage) as association:
        assert association.send_c_store(encoded(broken)).Status == Status.SUCCESS
    assert [row["state"] for row in hospital.site.rows("quarantine")] == ["HELD"]
    hospital.set("COMPLETED", 1, 2)
    assert hospital.settle()[1] == "step completed, all 2 announced came"


def test_a_discontinued_step_settles_at_once_and_is_not_called_complete(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1)
    hospital.set("DISCONTINUED", 1)
    assert hospital.settle() == ("SETTLED", "step discontinued, all 1 announced came", False)


def test_one_of_two_steps_in_progress_keeps_the_study_open(hospital: Hospital) -> None:
    other = STEP + ".2"
    hospital.create()
    hospital.create(step=other)
    hospital.send(1, 2)
    hospital.set("COMPLETED", 1)
    assert hospital.settle()[0] == "RECEIVING"
    hospital.set("COMPLETED", 2, step=other)
    assert hospital.settle() == ("SETTLED", "step completed, all 2 announced came", True)


def test_a_step_of_another_study_says_nothing_of_this_one(hospital: Hospital) -> None:
    hospital.create(study="1.2.826.0.1.3680043.8.498.2")
    hospital.set("COMPLETED", 1, study=2)
    hospital.send(1)
    assert hospital.settle()[0] == "RECEIVING"


def test_a_step_that_lists_nothing_leaves_it_to_the_quiet_time(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1)
    assert hospital.set("COMPLETED", lists=False).Status == Status.SUCCESS
    assert hospital.settle()[0] == "RECEIVING"


def test_a_late_step_says_that_a_settled_study_lacks_images(site: Site) -> None:
    hospital = Hospital(site, quiet_s=0.1, quiet_by_modality={})
    try:
        hospital.create()
        hospital.send(1)
        time.sleep(0.2)
        assert hospital.settle() == ("SETTLED", "quiet for 0.1 s, step in progress", True)
        hospital.set("COMPLETED", 1, 2)
        assert hospital.settle()[::2] == ("SETTLED", False)
        last = site.audited("study.announced")[-1].detail
        assert (last["late"], last["missing"]) == (True, 1)
        hospital.send(2)  # and it is whole with the one that was missing
        assert hospital.settle() == ("SETTLED", "step completed, all 2 announced came", True)
    finally:
        hospital.close()


def test_late_images_that_no_step_lists_do_not_settle_one_by_one(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1)
    hospital.set("COMPLETED", 1)
    assert hospital.settle()[0] == "SETTLED"
    hospital.send(7)
    assert hospital.settle()[0] == "RECEIVING"


def test_a_study_that_the_archive_lists_whole_settles_without_its_quiet_time(hospital: Hospital) -> None:
    hospital.send(1, 2)
    assert hospital.notify(1, 2, gone=(3,)).Status == Status.SUCCESS
    time.sleep(0.3)
    assert hospital.settle() == ("SETTLED", "archive lists all 2 instances", True)


def test_an_archive_that_lists_image_by_image_costs_at_most_one_early_settling(hospital: Hospital) -> None:
    for number in range(1, 6):
        hospital.send(number)
        hospital.notify(number, uid=f"1.2.3.4.{number}")
        time.sleep(0.25)
        hospital.settle()
    with hospital.compute.database.read() as connection:
        row = connection.execute(select(tables.study)).one()
    assert (row.state, row.revision) == ("RECEIVING", 2)


def test_a_step_in_progress_outweighs_the_archives_list(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1)
    hospital.notify(1)
    time.sleep(0.3)
    assert hospital.settle()[0] == "RECEIVING"


def test_every_wrong_request_is_answered_by_the_right_name_and_changes_nothing(hospital: Hospital) -> None:
    assert hospital.set("COMPLETED", 1).Status == Status.NO_SUCH_INSTANCE
    assert hospital.create(PerformedProcedureStepStatus="COMPLETED").Status == Status.INVALID_ATTRIBUTE_VALUE
    assert hospital.create(ScheduledStepAttributesSequence=[]).Status == Status.MISSING_ATTRIBUTE
    assert hospital.create(step=None).Status == Status.MISSING_ATTRIBUTE
    assert hospital.create().Status == Status.SUCCESS
    assert hospital.create().Status == Status.DUPLICATE_SOP_INSTANCE
    assert hospital.set("DONE", 1).Status == Status.INVALID_ATTRIBUTE_VALUE
    assert hospital.set(None, 1).Status == Status.SUCCESS
    assert hospital.set("COMPLETED", 1).Status == Status.SUCCESS
    for state in ("COMPLETED", "DISCONTINUED", "IN PROGRESS", None):
        refused = hospital.set(state, 1, 2)
        assert (refused.Status, refused.ErrorID) == (Status.PROCESSING_FAILURE, ErrorId.STEP_NO_LONGER_UPDATABLE)
    assert [row["state"] for row in hospital.site.rows("announcement")] == ["COMPLETED"]
    assert len(hospital.site.rows("announced_instance")) == 1
    assert hospital.notify(1).Status == Status.SUCCESS
    assert hospital.notify(1).Status == Status.DUPLICATE_SOP_INSTANCE
    reasons = {row["reason"] for row in hospital.scp.refused.rows()}
    assert {"announce.final", "announce.unknown", "announce.duplicate", "announce.invalid-value"} <= reasons


def test_a_step_that_cannot_be_taken_down_now_is_answered_so_that_it_comes_again(hospital: Hospital) -> None:
    hospital.refuse = Retry("ledger.busy", "locked")
    assert hospital.create().Status == Status.RESOURCE_LIMITATION
    hospital.refuse = None
    assert hospital.create().Status == Status.SUCCESS


def test_nothing_is_announced_to_a_disk_that_is_almost_full(hospital: Hospital) -> None:
    with hospital.association(ModalityPerformedProcedureStep) as association:  # begun while there was room
        hospital.free = (1 << 20) - 1
        attributes = Dataset()
        attributes.PerformedProcedureStepStatus = "IN PROGRESS"
        scheduled = Dataset()
        scheduled.StudyInstanceUID = STUDY
        attributes.ScheduledStepAttributesSequence = [scheduled]
        status, _ = association.send_n_create(attributes, ModalityPerformedProcedureStep, STEP)
        assert status.Status == Status.RESOURCE_LIMITATION
        hospital.free = 1 << 40
        status, _ = association.send_n_create(attributes, ModalityPerformedProcedureStep, STEP)
        assert status.Status == Status.SUCCESS
    assert {row["reason"] for row in hospital.scp.refused.rows()} == {"spool.disk-full"}


def test_who_announces_faster_than_the_site_allows_waits_for_his_answers(site: Site) -> None:
    hospital = Hospital(site, mb_per_s=0.02)
    try:
        hospital.create()
        begun = time.monotonic()
        assert hospital.set("IN PROGRESS", *range(700)).Status == Status.SUCCESS  # some 60 kB, of which 40 kB are free
        assert time.monotonic() - begun > 0.5
    finally:
        hospital.close()


def test_a_word_of_too_many_studies_or_instances_is_refused_by_name(hospital: Hospital) -> None:
    def of(count: int) -> list[Dataset]:
        items = [Dataset() for _ in range(count)]
        for number, item in enumerate(items):
            item.StudyInstanceUID = f"{STUDY}.{number}"
        return items

    assert hospital.create(ScheduledStepAttributesSequence=of(65)).Status == Status.INVALID_ATTRIBUTE_VALUE
    assert hospital.create(ScheduledStepAttributesSequence=of(64)).Status == Status.SUCCESS
    assert hospital.set("COMPLETED", *range(10_001)).Status == Status.INVALID_ATTRIBUTE_VALUE
    assert hospital.notify(*range(10_001)).Status == Status.INVALID_ATTRIBUTE_VALUE
    assert hospital.site.rows("announced_instance") == []
    assert {row["reason"] for row in hospital.scp.refused.rows()} == {"announce.too-long"}


def test_a_scouts_own_step_does_not_settle_the_whole_study(hospital: Hospital) -> None:
    hospital.create()
    hospital.send(1, 2, 3)
    hospital.set("COMPLETED", 1)
    assert hospital.settle()[0] == "RECEIVING"
    other = STEP + ".2"
    hospital.create(step=other)
    hospital.set("COMPLETED", 2, 3, step=other)
    assert hospital.settle() == ("SETTLED", "step completed, all 3 announced came", True)


def test_what_a_site_does_not_want_is_not_negotiated(site: Site) -> None:
    hospital = Hospital(site, signals=["ian"])
    try:
        entity = AE("CT1")
        entity.add_requested_context(ModalityPerformedProcedureStep)
        entity.add_requested_context(InstanceAvailabilityNotification)
        association = entity.associate("127.0.0.1", hospital.scp.port, ae_title="EDGENODE")
        accepted = [str(context.abstract_syntax) for context in association.accepted_contexts]
        association.release()
        assert accepted == [InstanceAvailabilityNotification]
    finally:
        hospital.close()


def test_a_step_of_ten_thousand_images_is_taken_and_one_without_end_is_cut_off(hospital: Hospital) -> None:
    hospital.create()
    assert hospital.set("COMPLETED", *range(10_000)).Status == Status.SUCCESS
    assert len(hospital.site.rows("announced_instance")) == 10_000
    huge = Dataset()
    huge.PerformedProcedureStepStatus = "IN PROGRESS"
    huge.EncapsulatedDocument = bytes(5_000_000)
    with suppress(AssertionError), hospital.association(ModalityPerformedProcedureStep) as association:
        association.send_n_create(huge, ModalityPerformedProcedureStep, STEP + ".9")
    assert any(row["reason"] == "command-too-long" for row in hospital.scp.refused.rows())
    hospital.send(1)  # and the receiver goes on


def test_a_step_says_the_same_after_the_receiver_was_killed(site: Site) -> None:
    first = Hospital(site, quiet_s=60)
    first.create()
    first.set("COMPLETED", 1)
    first.close()
    again = Hospital(site, quiet_s=60)
    try:
        again.send(1)
        assert again.settle()[1] == "step completed, all 1 announced came"
    finally:
        again.close()


def test_forgotten_announcements_are_deleted(hospital: Hospital) -> None:
    hospital.create()
    hospital.set(None, 1, 2)
    assert retention.forget_announcements(hospital.compute.database) == 0
    assert retention.forget_announcements(hospital.compute.database, days=0.0) == 1
    assert hospital.site.rows("announced_instance") == []
    assert hospital.set("COMPLETED", 1).Status == Status.NO_SUCH_INSTANCE


def test_images_and_steps_may_share_an_association(hospital: Hospital) -> None:
    hospital.create()
    with hospital.association(CTImageStorage, ModalityPerformedProcedureStep) as association:
        assert association.send_c_store(encoded(image(1))).Status == Status.SUCCESS
        done = Dataset()
        done.PerformedProcedureStepStatus = "COMPLETED"
        series = Dataset()
        series.ReferencedImageSequence = [reference(1, 1), reference(2, 1)]
        done.PerformedSeriesSequence = [series]
        status, _ = association.send_n_set(done, ModalityPerformedProcedureStep, STEP)
        assert status.Status == Status.SUCCESS
        assert association.send_c_store(encoded(image(2))).Status == Status.SUCCESS
    assert hospital.settle()[0] == "SETTLED"


def test_requests_that_the_node_does_not_serve_end_and_harm_nobody(hospital: Hospital) -> None:
    hospital.create()
    with hospital.association(ModalityPerformedProcedureStep) as association:
        status, _ = association.send_n_get([0x00400252], ModalityPerformedProcedureStep, STEP)
        assert status.get("Status") != Status.SUCCESS
    with hospital.association(InstanceAvailabilityNotification) as association:
        status, _ = association.send_n_set(reference(1, 1), InstanceAvailabilityNotification, STEP)
        assert status.get("Status") != Status.SUCCESS
    with hospital.association(ModalityPerformedProcedureStep) as association:
        status, _ = association.send_n_action(None, 1, ModalityPerformedProcedureStep, STEP)
        assert status.get("Status") != Status.SUCCESS
    assert hospital.set("COMPLETED", 1).Status == Status.SUCCESS
    end = time.monotonic() + 5
    while hospital.scp._open and time.monotonic() < end:
        time.sleep(0.05)
    assert hospital.scp._open == {}


@pytest.mark.parametrize("noise", [b"", b"\x00", b"\x40\x00\x52\x02\xff\xff\xff\xff", bytes(range(256)) * 8])
def test_attribute_lists_that_are_none_are_refused(hospital: Hospital, noise: bytes) -> None:
    signal = IdentifiedSignal(
        Command.CREATE, noise, "1.2.840.10008.1.2", ModalityPerformedProcedureStep, STEP, "CT1", time.time()
    )
    [answer] = intake_worker.make_intake(hospital.config)([signal])
    assert isinstance(answer, EdgeNodeError)
    assert answer.code in ("announce.unreadable", "announce.missing-attribute")
