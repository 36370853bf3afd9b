"""What did not go all the way, and why, in words for people."""

from __future__ import annotations

from typing import Any

from edge_node.demo.day import Run
from edge_node.demo.report_data import HeldRow

_EXPLAINED = {
    "consent.denied": ("The patient's consent does not cover research: read and prioritised, but never sent.", ""),
    "pixels.uncleaned": (
        "Pixels of this kind may show a name: kept back until they are cleaned and checked.",
        "edge-node study show",
    ),
    "deid.": (
        "The object could not be de-identified, so it is sealed away: nothing is lost.",
        "edge-node quarantine release",
    ),
    "triage.": ("No shipped model is meant for this kind of study: the order alone decides.", ""),
}


def held_rows(run: Run, details: dict[int, dict[str, Any] | None], items: dict[str, dict[str, Any]]) -> list[HeldRow]:
    rows = []
    for study in run.studies:
        key, detail = run.keys[study.arrival], details[study.arrival]
        if key in items:
            item = items[key]
            words, hint = _explained(item["code"])
            rows.append(
                HeldRow(study.arrival, "quarantined", len(study.files), item["code"], words, f"{hint} {item['item']}")
            )
        if detail is None:
            continue
        result = detail["result"]
        if result and result["outcome"] != "FINDING":
            words, _ = _explained(result["reason"])
            state = result["outcome"].lower().replace("_", " ")
            rows.append(HeldRow(study.arrival, state, detail["instances"], result["reason"], words, ""))
        for delivery in detail["deliveries"]:
            if delivery["state"] != "DELIVERED":
                words, hint = _explained(delivery["code"])
                command = f"{hint} {key}".strip() if hint else ""
                rows.append(
                    HeldRow(
                        study.arrival,
                        delivery["state"].lower(),
                        delivery["instances"],
                        delivery["code"],
                        words,
                        command,
                    )
                )
    return rows


def _explained(code: str) -> tuple[str, str]:
    for prefix, words in _EXPLAINED.items():
        if code.startswith(prefix):
            return words
    return "", ""
