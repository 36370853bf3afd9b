"""The validation of a model as one HTML file to read, print and sign: nothing in it is loaded from anywhere."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from io import BytesIO
from typing import Final

from PIL import Image

from edge_node import __version__
from edge_node.domain.finding import KeyImage
from edge_node.service.plots import STYLE, calibration_plot, roc_plot, score_plot
from edge_node.service.validating import Validation
from edge_node.triage.figures import Estimate
from edge_node.triage.validation import FEW, Point

_PAGE: Final = """
:root{--ink:#1b2733;--dim:#5b6b7a;--paper:#fff;--line:#dde4ea;--red:#b3261e;--ok:#1b7f4b;--mark:#1f5fa8;--soft:#f4f7fa}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
margin:2rem auto;max-width:64rem;padding:0 1.2rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2.2rem 0 .5rem;border-bottom:1px solid var(--line)}
p{margin:.3rem 0 .7rem}.dim{color:var(--dim)}.warn{color:var(--red);font-weight:600}
table{border-collapse:collapse;width:100%;margin:.4rem 0 1rem}th,td{text-align:left;padding:.3rem .6rem;
border-top:1px solid var(--line);font-variant-numeric:tabular-nums;vertical-align:top}
th{font-size:.8rem;color:var(--dim);border-top:0}
.key{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.7rem;margin:1rem 0}
.key div{background:var(--soft);border-radius:8px;padding:.7rem .9rem}
.key b{display:block;font-size:1.5rem}.plots{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(18rem,1fr))}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.8rem}
figure{margin:0}img{width:100%;border-radius:6px;background:#000}figcaption{font-size:.8rem;color:var(--dim)}
.banner{border:2px solid var(--red);border-radius:8px;padding:.6rem .9rem;color:var(--red);font-weight:600;
margin:1rem 0}.sign td{height:3.2rem}@media print{body{margin:0;max-width:none}h2,figure,tr,svg{break-inside:avoid}}
"""
_CELLS: Final = {
    "miss": "Missed: positives that were not flagged",
    "false alarm": "False alarms: flagged without the finding",
    "hit": "Hits that were nearest to being missed",
    "spared": "Rightly not flagged, nearest to a false alarm",
}
_KINDS: Final = {
    "sex": "sex",
    "age": "age",
    "manufacturer": "scanner",
    "protocol": "protocol",
    "slice": "slice thickness",
    "kind": "kind",
}


def render(made: Validation) -> str:
    """The whole report."""
    title = f"Validation of {made.model} {made.version}: {made.meaning}"
    body = [
        f"<h1>{_e(title)}</h1>",
        f'<p class="dim">{_e(made.node)} · {_time(made.at)} · edge-node {_e(__version__)}</p>',
        f'<div class="banner">{_e(made.label)}. Advisory triage: a radiologist reads every study.</div>',
        _summary(made),
        _section("What was validated", _identity(made)),
        _section("Discrimination and calibration", _plots(made)),
        _section("Operating points at this site", _points(made)),
        _section("Decisions", _confusion(made)),
        _section("Groups", _groups(made)),
        _section(f"Parity with {made.against}", _parity(made)) if made.parity else "",
        _section("Examples", _examples(made)),
        _section("How to read this", _method(made)),
        _section("Signature", _signature()),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{_e(title)}</title><style>{_PAGE}{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _summary(made: Validation) -> str:
    f, at = made.figures, made.figures.in_force
    cards = (
        ("AUROC", f.auroc, _share3),
        ("Sensitivity", at.sensitivity, _percent),
        ("Specificity", at.specificity, _percent),
        (f"PPV at a prevalence of {made.site.prevalence:.1%}", at.ppv, _percent),
        (f"Alerts a day, of {made.site.studies_per_day:g} studies", at.alerts_per_day, _number),
    )
    boxes = "".join(
        f"<div>{_e(name)}<b>{_e(show(value.value))}</b>"
        f'<span class="dim">{_e(show(value.low))} to {_e(show(value.high))}</span></div>'
        for name, value, show in cards
    )
    few = (
        f'<p class="warn">Only {min(f.positives, f.others)} cases of one kind: too few to rely on these figures.</p>'
        if min(f.positives, f.others) < FEW
        else ""
    )
    return f'<div class="key">{boxes}</div>{few}'


def _identity(made: Validation) -> str:
    f = made.figures
    lost = sum(f.not_judged.values())
    rows = [
        ("model", f"{made.model} {made.version}, variant {made.variant} on {made.provider}"),
        ("ONNX file, sha256", made.sha256),
        ("package", f"{made.package} ({made.trust})"),
        ("intended use", made.intended_use),
        *(("limit", limit) for limit in made.limits),
        ("finding", f"{made.meaning} ({made.finding})"),
        ("threshold", f"{f.in_force.threshold:g}"),
        ("cases", f"{f.positives} positives, {f.others} others; {lost} of them were not judged"),
        ("truth, sha256 of the CSV", made.truth_sha256),
        ("site", f"prevalence {made.site.prevalence:.2%}, {made.site.studies_per_day:g} studies a day (as told)"),
        *(("remark", remark) for remark in made.remarks),
    ]
    return _table(("what", "value"), rows)


def _plots(made: Validation) -> str:
    f = made.figures
    at = f.in_force
    shown = "".join(
        f"<figure>{plot}<figcaption>{caption}</figcaption></figure>"
        for plot, caption in (
            (
                roc_plot(f.roc, (1 - at.specificity.value, at.sensitivity.value)),
                f"AUROC {_interval(f.auroc, _share3)}",
            ),
            (
                calibration_plot(f.bins),
                f"Expected calibration error {f.ece:.3f}, Brier score {f.brier:.3f}, fitting temperature "
                f"{f.temperature:.2f}",
            ),
            (score_plot(f.scores, at.threshold), f"Threshold {at.threshold:g}"),
        )
    )
    share = f.positives / max(1, f.positives + f.others)
    note = (
        f"<p class='dim'>Calibration is that of these cases, of which {share:.0%} are positive; at another prevalence "
        "the same probabilities would be true less or more often.</p>"
    )
    return f'<div class="plots">{shown}</div>{note}'


def _points(made: Validation) -> str:
    def row(p: Point) -> tuple[str, ...]:
        return (
            p.why,
            f"{p.threshold:.3f}",
            *(_interval(part, _percent) for part in (p.sensitivity, p.specificity, p.ppv, p.npv)),
            _interval(p.alerts_per_day, _number),
        )

    head = ("point", "threshold", "sensitivity", "specificity", "PPV", "NPV", "alerts a day")
    name = f"{made.model}/{made.finding}"
    return (
        _table(head, [row(p) for p in made.figures.points]) + "<p class='dim'>To use another point: "
        f'<code>[triage] thresholds = {{ "{_e(name)}" = … }}</code>, then restart.'
        " A point that was chosen on these cases looks better here than it will be: prove it on others.</p>"
    )


def _confusion(made: Validation) -> str:
    f = made.figures
    rows: list[tuple[object, ...]] = [
        ("positive", f.hits, f.misses, f.not_judged_positives),
        ("other", f.false_alarms, f.spared, sum(f.not_judged.values()) - f.not_judged_positives),
    ]
    told = _table(("truth", "flagged", "not flagged", "not judged"), rows)
    if f.not_judged:
        told += _table(("not judged because", "studies"), sorted(f.not_judged.items()))
        told += (
            f"<p>If every positive that was not judged counts as missed, the sensitivity is "
            f"{_interval(f.worst_case, _percent)}.</p>"
        )
    return told


def _groups(made: Validation) -> str:
    rows = []
    for g in made.figures.groups:
        warn = [f"fewer than {FEW} positives or others"] if g.few else []
        warn += ["differs from the whole"] if g.apart else []
        rows.append(
            (
                _KINDS[g.kind],
                g.name,
                f"{g.positives} / {g.others}",
                g.not_judged or "",
                _interval(g.auroc, _share3),
                _interval(g.sensitivity, _percent),
                _interval(g.specificity, _percent),
                "; ".join(warn),
            )
        )
    head = ("by", "group", "positives / others", "not judged", "AUROC", "sensitivity", "specificity", "")
    if not rows:
        return "<p>The objects say nothing of sex, age, scanner or protocol any more.</p>"
    return _table(head, rows, warn_last=True) + (
        "<p class='dim'>“Differs” means that the figure of the whole lies outside of the group's 95 % interval: among "
        "many groups one in twenty does so by chance. No remark does not mean that a group is served as well.</p>"
    )


def _parity(made: Validation) -> str:
    p = made.parity
    if p is None:
        return ""
    rows = [
        ("cases", f"{p.positives} positives, {p.others} others"),
        ("decisions that differ", f"{p.flips} ({_interval(p.flip_share, _percent)})"),
        ("new misses", f"{p.new_misses}; these cases cannot exclude {p.miss_bound:.1%} of the positives"),
        ("largest difference of probability", f"{p.worst_probability:.3f}"),
        ("difference of AUROC (paired DeLong)", _interval(p.area_difference, lambda v: f"{v:+.4f}")),
    ]
    verdict = "; ".join((*p.breaches, *((p.short,) if p.short else ()))) or "within the card's tolerance"
    css = "warn" if p.breaches or p.short else "ok"
    return _table(("what", "value"), rows) + f'<p class="{css}">{_e(verdict)}</p>'


def _examples(made: Validation) -> str:
    parts = []
    for cell, title in _CELLS.items():
        shown = [one for one in made.examples if one.case.cell == cell]
        if not shown:
            continue
        pictures = "".join(
            f'<figure><img alt="{_e(cell)}, line {one.case.line}" src="data:image/png;base64,{_png(one.image)}">'
            f"<figcaption>line {one.case.line} of the truth, score {one.case.probability:.3f}"
            f"{', ' + _e(one.case.groups['kind']) if one.case.groups.get('kind', 'not said') != 'not said' else ''}"
            "</figcaption></figure>"
            for one in shown
        )
        parts.append(f'<h3>{_e(title)}</h3><div class="pictures">{pictures}</div>')
    return "".join(parts) or "<p>No picture.</p>"


def _method(made: Validation) -> str:
    return (
        "<p>Each study went through the triage of this node as if it had just come: selection, quality control, "
        f"preparation, variant {_e(made.variant)} on {_e(made.provider)}, calibration, threshold. "
        "Intervals are of 95 %: AUROC after DeLong (a perfect separation gets Wilson's bound of the smaller group), "
        "shares after Wilson, predictive values after Mercaldo by Bayes' rule at the prevalence told above, alerts "
        "from the worst and best ends of both shares. What was not judged is in no figure but the one that says so. "
        "These cases may differ from tomorrow's: the watch over drift compares.</p>"
    )


def _signature() -> str:
    blank = ("", "", "", "")
    return (
        "<p>I have read this report and decide: this model may be used at this site as</p>"
        "<p>☐ not at all &nbsp; ☐ shadow &nbsp; ☐ information &nbsp; ☐ live &nbsp;&nbsp; until ____________</p>"
        '<div class="sign">' + _table(("name", "role", "date", "signature"), [blank, blank]) + "</div>"
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{_e(title)}</h2>{inside}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], *, warn_last: bool = False) -> str:
    top = "".join(f"<th>{_e(cell)}</th>" for cell in head)
    body = ""
    for row in rows:
        css = ["" for _ in row]
        if warn_last:
            css[-1] = ' class="warn"'
        body += "<tr>" + "".join(f"<td{c}>{_e(str(cell))}</td>" for c, cell in zip(css, row, strict=True)) + "</tr>"
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _png(image: KeyImage) -> str:
    out = BytesIO()
    Image.frombytes("RGB", (image.columns, image.rows), image.rgb).quantize(128).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")


def _interval(value: Estimate, show: object) -> str:
    shower = show if callable(show) else str
    return f"{shower(value.value)} ({shower(value.low)} to {shower(value.high)})" if value.known else "unknown"


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "unknown"


def _share3(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unknown"


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "unknown"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _e(text: str) -> str:
    return html.escape(text)
