"""The demo's report: one self-contained HTML page, no script and no external asset, made from `ReportData`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import median

from edge_node.demo.report_data import (
    Check,
    DeidRow,
    DeidView,
    HeldRow,
    KeyImageCard,
    ModelView,
    ReportData,
    StudyEvents,
    StudyRow,
    TrainerView,
    WorklistRow,
)
from edge_node.demo.report_timeline import timeline
from edge_node.domain.finding import ADVISORY

__all__ = [
    "Check",
    "DeidRow",
    "DeidView",
    "HeldRow",
    "KeyImageCard",
    "ModelView",
    "ReportData",
    "StudyEvents",
    "StudyRow",
    "TrainerView",
    "WorklistRow",
    "render",
    "write_report",
]

_VERDICTS = {
    "FLAGGED": ("flag", "flagged"),
    "NOT_FLAGGED": ("", "not flagged"),
    "CANNOT_JUDGE": ("hold", "cannot judge"),
    "NOT_APPLICABLE": ("", "no model for it"),
    "SKIPPED": ("hold", "skipped"),
    "QUARANTINED": ("hold", "quarantined"),
}
_ROW_HEIGHT = 66  # pixels of a reading-list row, as in report.css
_SIGN = (
    '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M8 1 15.5 14.5H.5Z" fill="none" stroke="currentColor" '
    'stroke-width="1.6" stroke-linejoin="round"/><path d="M8 6v4M8 12v.6" stroke="currentColor" stroke-width="1.8" '
    'stroke-linecap="round"/></svg>'
)


def write_report(data: ReportData, out: Path) -> Path:
    """Write the page to `out` (its folder is made) and return `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(data), encoding="utf-8")
    return out


def render(data: ReportData) -> str:
    """The page as HTML text."""
    css = files("edge_node.demo").joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        _checks(data),
        _reading_list(data),
        _key_images(data),
        _timeline(data),
        _deidentification(data),
        _trainer_and_models(data),
        _held(data),
        _all_studies(data),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>edge-node demo, {_e(data.started_at)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        f'{_header(data)}<main class="wrap">\n{"".join(sections)}</main>\n{_footer(data)}</body>\n</html>\n'
    )


def _e(value: object) -> str:
    return escape(str(value), quote=True)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _pill(kind: str, text: str) -> str:
    return f'<span class="{f"pill {kind}".strip()}">{_e(text)}</span>'


def _section(name: str, title: str, text: str, body: str) -> str:
    head = f'<div class="head"><h2 id="{name}">{_e(title)}</h2>' + (f"<p>{_e(text)}</p>" if text else "") + "</div>"
    return f'<section aria-labelledby="{name}">{head}\n{body}</section>\n'


def _advisory() -> str:
    return f'<p class="advisory" role="note">{_SIGN}<span>{_e(ADVISORY)}</span></p>'


def _header(data: ReportData) -> str:
    flagged = sum(study.verdict == "FLAGGED" for study in data.studies)
    objects = sum(study.objects for study in data.studies)
    waits = [s for study in data.studies if (s := study.events.seconds_to_worklist) is not None]
    on_top = all(row.flagged for row in data.worklist_after[:flagged])
    title = f"{_count(len(data.studies), 'study', 'studies')} arrived. "
    title += "None was flagged." if not flagged else f"{flagged} {'moved to the top' if on_top else 'were flagged'}."
    lead = (
        "Studies lost their identity on entry, were triaged inside the hospital, came back to the PACS under the right "
        "patient, and went on to the trainer de-identified. What could not pass was held back, and this page says why."
    )
    figures = [
        ("objects received", f"{objects:,}", ""),
        ("flagged for early reading", str(flagged), f"of {len(data.studies)}"),
        ("last image to worklist, median", f"{median(waits):.1f}" if waits else "none", "s" if waits else ""),
        ("de-identified objects at the trainer", f"{data.trainer.objects:,}", ""),
        ("identifiers found at the trainer", str(data.trainer.needles_found), f"of {data.trainer.needles:,} sought"),
    ]
    cells = "".join(
        f"<div><dd>{_e(value)}{f'<small>{_e(unit)}</small>' if unit else ''}</dd><dt>{_e(name)}</dt></div>"
        for name, value, unit in figures
    )
    return (
        '<header class="top"><div class="wrap">'
        f'<p class="eyebrow">edge-node {_e(data.version)}, demonstration run of {_e(data.started_at)}</p>'
        f'<h1>{_e(title)}</h1><p class="lead">{_e(lead)}</p>'
        '<p class="fiction">All patients, doctors and hospitals on this page are fictional.</p>'
        f'<dl class="figures">{cells}</dl></div></header>\n'
    )


def _checks(data: ReportData) -> str:
    def mark(kept: bool) -> str:
        colour, path = ("--ok", "m6 11.5 3.2 3.2L16 8") if kept else ("--flag", "m7 7 8 8m0-8-8 8")
        return (
            f'<svg viewBox="0 0 22 22" role="img" aria-label="{"kept" if kept else "broken"}">'
            f'<circle cx="11" cy="11" r="10" fill="var({colour}-faint)"/><path d="{path}" fill="none" '
            f'stroke="var({colour})" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>'
        )

    items = "".join(
        f'<li>{mark(c.kept)}<div><p>{_e(c.promise)}</p><p class="small soft">{_e(c.detail)}</p></div></li>'
        for c in data.checks
    )
    broken = sum(not c.kept for c in data.checks)
    title = "Every promise was kept" if not broken else f"{_count(broken, 'promise was', 'promises were')} broken"
    text = "Checked on this run, from what the PACS and the trainer really hold."
    return _section("promises", title, text, f'<ul class="checks card">{items}</ul>')


def _reading_list(data: ReportData) -> str:
    studies = {study.number: study for study in data.studies}
    before = {number: place for place, number in enumerate(data.worklist_before)}
    flagged = {row.study for row in data.worklist_after if row.flagged}

    def who(study: StudyRow, line: str) -> str:
        return f'<div class="who"><b>{_e(study.patient)}</b><span title="{_e(line)}">{_e(line)}</span></div>'

    was = "".join(
        f'<li{" class=flagged" if number in flagged else ""}><span class="rank">{place + 1}</span>'
        f"{who(studies[number], studies[number].description)}</li>"
        for number, place in before.items()
    )
    now, slopes = [], []
    for place, row in enumerate(data.worklist_after):
        start = before.get(row.study)
        up = 0 if start is None else start - place
        move = f"▲ {up}" if up > 0 else f"▼ {-up}" if up < 0 else "＝"
        level = _pill("flag" if row.level == "HIGH" else "", row.level)
        said = f"{'up' if up > 0 else 'down'} {abs(up)}" if up else "unmoved"
        now.append(
            f'<li{" class=flagged" if row.flagged else ""}><span class="rank">{place + 1}</span>'
            f"{who(studies[row.study], row.reason)}{level}"
            f'<span class="move{" up" if row.flagged and up > 0 else ""}" aria-label="{said}">{move}</span></li>'
        )
        if start is not None:
            left, right = ((p + 0.5) * _ROW_HEIGHT for p in (start, place))
            slopes.append((row.flagged, f"M0 {left} C45 {left} 39 {right} 84 {right}"))
    height = max(len(before), len(data.worklist_after), 1) * _ROW_HEIGHT
    paths = "".join(f'<path{" class=flagged" if top else ""} d="{d}"/>' for top, d in sorted(slopes))
    body = (
        f'{_advisory()}<div class="lists"><div class="was"><h3>Before <span>in order of arrival</span></h3>'
        f'<ol>{was}</ol></div><svg class="slopes" viewBox="0 0 84 {height}" style="height:{height}px" '
        f'preserveAspectRatio="none" aria-hidden="true">{paths}</svg>'
        f'<div class="now"><h3>After <span>in reading order</span></h3><ol>{"".join(now)}</ol></div></div>'
    )
    text = (
        "As the PACS shows it, with the hospital's own names. Triage only shortens a study's time to be read; a study "
        "that was not flagged keeps the time its order gives it, and is read all the same."
    )
    return _section("reading-list", "The reading list, before and after", text, body)


def _key_images(data: ReportData) -> str:
    if not data.key_images:
        return ""
    studies = {study.number: study for study in data.studies}

    def card(key: KeyImageCard) -> str:
        study = studies[key.study]
        bar = (
            '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect width="{100 * key.probability:.1f}" height="8"/>'
            f'<line x1="{100 * key.threshold:.1f}" x2="{100 * key.threshold:.1f}" y1="0" y2="8"/></svg>'
        )
        flagged = key.probability >= key.threshold
        words = f"Suspected: {key.finding}" if flagged else f"{key.finding}: not flagged"
        shown = "with the suspected region drawn in" if flagged else "where the model looked hardest"
        return (
            f'<figure class="card"><img src="data:image/png;base64,{key.png}" '
            f'alt="Key image of study {key.study} {shown}">'
            f"<figcaption><h3>{_e(study.patient)}</h3><p>{_e(words)}</p>"
            f'<div class="score">{bar}<b>{key.probability:.2f}</b></div>'
            f'<p class="small soft">Flagged from a score of {key.threshold:.2f}, ACR category {key.category}. '
            f"Scored in {_seconds(key.seconds)} ({_e(key.provider)}). Known truth: {_e(study.truth)}.</p>"
            "</figcaption></figure>"
        )

    text = "Stored next to the images, so that the reader sees at once what raised the study and can disagree."
    cards = "".join(card(key) for key in data.key_images)
    return _section("key-images", "What the reader sees", text, f'{_advisory()}<div class="keys">{cards}</div>')


def _timeline(data: ReportData) -> str:
    text = "From the first image at the door to the last object at the trainer, in seconds since the run began."
    return _section("timeline", "How long each study took", text, timeline(data.studies, _e, _seconds))


def _deidentification(data: ReportData) -> str:
    view = data.deid
    if view is None:
        return ""
    kinds = {"removed": "hold", "replaced": "ok", "kept": ""}

    def value(text: str) -> str:
        return _e(text) if text else '<span class="gone">empty</span>'

    def row(item: DeidRow) -> tuple[str, ...]:
        after = '<span class="gone">gone</span>' if item.action == "removed" else value(item.after)
        name = f'<b>{_e(item.name)}</b> <span class="mono soft">{_e(item.tag)}</span>'
        return name, value(item.before), after, _pill(kinds.get(item.action, ""), item.action)

    table = _table(("Attribute", "In the hospital", "What left", "Action"), map(row, view.rows), "deid")
    tally = "".join(
        _pill(kinds[name], f"{count:,} {name}")
        for name, count in (("removed", view.removed), ("replaced", view.replaced), ("kept", view.kept))
    )
    pictures = "".join(
        f'<figure><img src="data:image/png;base64,{png}" alt="One image of the study, {side}">'
        f"<figcaption>{_e(caption)}</figcaption></figure>"
        for png, side, caption in (
            (view.before_png, "before", "In the hospital"),
            (view.after_png, "after", "What left"),
        )
    )
    body = (
        f'<div class="wall"><div class="sides">{pictures}</div>'
        f'<div><div class="tally">{tally}</div><div class="card scroll">{table}</div></div></div>'
    )
    text = (
        f"One object of study {view.study} on both sides of the wall, by the recipe {view.recipe}. "
        "Identity is removed in memory, before anything is written."
    )
    return _section("identity", "What was taken away", text, body)


def _trainer_and_models(data: ReportData) -> str:
    t = data.trainer
    found = _pill("ok", "none") if not t.needles_found else _pill("flag", f"{t.needles_found:,} found")
    facts = [
        ("Objects", f"{t.objects:,} of {_count(t.studies, 'study', 'studies')}, {_size(t.size)}"),
        ("Identifiers sought", f"{t.needles:,}, in every byte and many character sets"),
        ("Identifiers found", found),
        ("Refused", f"{t.refused:,}"),
        ("Came twice, same bytes", f"{t.repeated:,}"),
        ("Came twice, other bytes", f"{t.changed:,}"),
    ]
    trainer = f'<div class="card panel"><h3>At the trainer: {_e(t.name)}</h3>{_facts(facts)}</div>'
    models = "".join(_model(model) for model in data.models)
    text = (
        "Every object at the trainer was searched for every identifier the hospital gave."
        if t.needles
        else "What the trainer says it holds."
    )
    return _section("trainer", "The far end, and the model", text, f'<div class="two">{trainer}{models}</div>')


def _model(model: ModelView) -> str:
    facts = [
        ("Version", _e(f"{model.version}, {model.variant}")),
        ("Ran on", _e(model.provider)),
        ("Threshold", f"{model.threshold:.2f}"),
        ("Intended use", _e(model.intended_use)),
        *((name, _e(value)) for name, value in model.facts),
        ("File (sha256)", f"<code>{_e(model.sha256[:16])}…</code>"),
    ]
    return (
        f'<div class="card panel"><h3>{_e(model.name)}</h3><p class="label">{_e(model.label)}</p>{_facts(facts)}</div>'
    )


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; values are HTML."""
    return "<dl>" + "".join(f"<dt>{_e(name)}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def _held(data: ReportData) -> str:
    studies = {study.number: study for study in data.studies}

    def row(item: HeldRow) -> tuple[str, ...]:
        name = f"<b>{item.study}</b> {_e(studies[item.study].description)}"
        why = f'{_e(item.explanation)}<br><code class="soft">{_e(item.reason)}</code>'
        kind = "hold" if item.state in ("quarantined", "withheld") else ""
        return (
            name,
            _pill(kind, item.state),
            f"<span class=nb>{_count(item.objects, 'object')}</span>",
            why,
            _e(item.next_step),
        )

    if not data.held:
        return _section("held", "What was held back", "Nothing: every study went all the way.", "")
    table = _table(("Study", "State", "Objects", "Why", "What to do"), map(row, data.held))
    text = "Nothing is dropped in silence. What does not go all the way waits where an administrator sees it."
    return _section("held", "What was held back, and why", text, f'<div class="card scroll">{table}</div>')


def _all_studies(data: ReportData) -> str:
    def row(study: StudyRow) -> tuple[str, ...]:
        kind, word = _VERDICTS.get(study.verdict, ("", study.verdict.lower()))
        score = f" {study.probability:.2f}" if study.probability is not None else ""
        wait = study.events.seconds_to_worklist
        return (
            f"<b>{study.number}</b> {_e(study.description)}",
            f'{_e(study.patient)}<br><span class="small">{_e(study.patient_id)}, {_e(study.accession)}</span>',
            f"{_e(study.modality)}, <span class=nb>{_count(study.objects, 'object')}</span>",
            _e(study.order_priority.capitalize()),
            _e(study.truth),
            _pill(kind, word) + _e(score),
            _e(_seconds(wait) if wait is not None else "none"),
            _e(study.outcome),
        )

    names = ("Study", "Patient", "What", "Order", "Known truth", "Triage (advisory)", "To worklist", "Outcome")
    table = _table(names, map(row, data.studies))
    text = "In order of arrival. The truth is known because the heads are synthetic; in a hospital it is not."
    return _section("studies", "Every study accounted for", text, f'<div class="card scroll">{table}</div>')


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]], kind: str = "") -> str:
    """A table whose rows stack on a narrow screen; cells are HTML."""
    head = "".join(f'<th scope="col">{_e(name)}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-name="{_e(name)}"{" class=lead" if place == 0 else ""}><span>{cell}</span></td>'
            for place, (name, cell) in enumerate(zip(names, cells, strict=True))
        )
        + "</tr>\n"
        for cells in rows
    )
    return f'<table class="{f"stack {kind}".strip()}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _footer(data: ReportData) -> str:
    return (
        '<footer><div class="wrap"><p>All patients, doctors and hospitals on this page are fictional. The head CTs are '
        "synthetic; the other images come from public test files. A report of a real site would never show names.</p>"
        f"<p>{_e(ADVISORY)}</p>"
        f"<p>Seed {data.seed}, {_e(data.hospital)}, {_seconds(data.seconds)} in all, edge-node {_e(data.version)}.</p>"
        "</div></footer>\n"
    )
