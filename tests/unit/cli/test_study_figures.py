"""`study show` tells what was measured of a flagged region by its name, and of what."""

from __future__ import annotations

import json

from edge_node.cli.study import figures
from edge_node.domain.finding import Code, Radiomic, TriageOutcome, TriageResult, result_to_json
from tests.results_back import finding


def test_figures_stand_with_finding_name_code_and_unit_and_without_a_unit_where_there_is_none():
    told = (
        Radiomic(Code("RNU0", "IBSI", "Volume of Mesh"), 28143.28145, "mm3"),
        Radiomic(Code("QCFX", "IBSI", "Sphericity"), 0.51, "1"),
    )
    of = "of the area where the model's map is at least 0.5; not a segmentation"
    one = finding(radiomics=told, quality=("quality.noise: 3", f"radiomics.region: {of}"))
    plain = json.loads(result_to_json(TriageResult(TriageOutcome.FINDING, findings=(one,))))
    assert list(figures(plain)) == [
        f"{one.code.meaning}: {of}",
        f"{one.code.meaning}: Volume of Mesh (RNU0) 28143.3 mm3",
        f"{one.code.meaning}: Sphericity (QCFX) 0.51",
    ]
    assert list(figures(None)) == []
