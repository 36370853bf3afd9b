"""Facts of an input for the watch: they measure what they are named for, and never cost a result."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset

from edge_node.triage import seen
from tests.unit.triage.studies import ct_slice


def of(volume, data=b"no DICOM"):
    return dict(seen.seen_of(lambda: data, volume))


def soft(noise, level=35.0, air=0.25):
    volume = np.random.default_rng(1).normal(level, noise, (40, 64, 64))
    volume[:, : int(64 * air)] = -1000
    return np.rint(volume).astype(np.int16)


@pytest.mark.parametrize("noise", [3, 8, 15])
def test_noise_level_and_air_are_measured(noise):
    told = of(soft(noise))
    assert told["noise HU"] == pytest.approx(noise, rel=0.05)
    assert told["soft HU"] == pytest.approx(35, abs=0.3)
    assert told["air share"] == 0.25
    assert told["slices"] == 40


def test_an_input_without_soft_tissue_or_header_has_fewer_facts_and_no_error():
    told = of(np.full((3, 8, 8), -1000, np.int16))
    assert "soft HU" not in told
    assert told["scanner"] == ""


def test_free_text_of_the_protocol_is_told_as_a_hash_only():
    ds = ct_slice(np.zeros((8, 8), np.int16), position=(0, 0, 0), spacing=(1, 1), number=1)
    ds.Manufacturer, ds.ManufacturerModelName, ds.ProtocolName = "Toy", "One<script>", "HEAD for Mr Smith"
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    told = of(soft(3), out.getvalue())
    assert told["scanner"] == "Toy One script"
    assert str(told["protocol"]).startswith("p-")
    assert len(str(told["protocol"])) == 10
    assert "Smith" not in str(told)
    assert told["slice mm"] == 5.0
    assert seen.protocol_of(Dataset()) == ""
