"""The models on the status page: state of the watch over drift, and its plots."""

from __future__ import annotations

import html
from typing import Any, Final

from edge_node.service.plots import trend

_ALWAYS: Final = ("flag rate", "score")
_MOST: Final = 6


def drift_section(rows: list[dict[str, Any]]) -> str:
    """A table with a line of plots a model; "" without results."""
    if not rows:
        return ""
    body = ""
    for row in rows:
        alarm = row["state"] == "alarm"
        state = f"changed: {', '.join(row['changed'])}" if alarm else row["state"]
        body += (
            f"<tr><td>{_e(row['model'])} {_e(row['version'])}<br>{_e(row['variant'])}, {_e(row['finding'])}</td>"
            f'<td class="{"bad" if alarm else ""}">{_e(state)}</td>'
            f"<td>{row['results']}; {row['waiting']} of {row['window']} in this window<br>"
            f"against {_e(row['reference'])}</td><td>{_plots(row)}</td></tr>"
        )
    head = "".join(f"<th>{_e(word)}</th>" for word in ("model", "drift", "results", "looks; shaded: expected"))
    return f"<h2>Models (edge-node model drift)</h2><table><tr>{head}</tr>{body}</table>"


def _plots(row: dict[str, Any]) -> str:
    names = list(dict.fromkeys([*_ALWAYS, *row["changed"]]))
    parts = []
    for name in names:
        points = row["history"].get(name)
        if not points:
            continue
        band = points[-1]["expected"]
        drawn = trend(
            [point["value"] for point in points],
            [point["alarm"] for point in points],
            (band[0], band[1]) if band else None,
            f"{name}, {len(points)} looks",
        )
        parts.append(f"<div>{_e(name)} {points[-1]['value']:.3g}<br>{drawn}</div>")
    return "".join(parts[:_MOST])


def _e(text: str) -> str:
    return html.escape(str(text))
