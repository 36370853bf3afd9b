"""Every stable code of the source is explained in the manual, and the manual explains no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from edge_node.consent import sources
from edge_node.deid import risk
from edge_node.forward import answer
from edge_node.triage.measures import MEASURES
from edge_node.worklist.order_change import OrderOutcome
from tests.docs.pages import MANUAL, ROOT, inline, label, read, rows

KINDS = {"Retry": "Retry", "Quarantine": "Quarantine", "Stop": "Stop", "EdgeNodeError": "Error"}
MAKERS = {
    **KINDS,
    "_residual": "Quarantine",
    "survivable": "Quarantine",
}  # raise with a code they are given
OPERATIONS = read(MANUAL / "operations.md")


def texts(node: ast.expr) -> Iterator[str]:
    """The code or codes an expression gives; a part that varies becomes ``*``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, name called, call); ``super().__init__`` of an error counts as a call of what it derives from."""
    for path in sorted((ROOT / "edge_node").rglob("*.py")):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in KINDS]
                for inner in ast.walk(node) if bases else ():
                    if isinstance(inner, ast.Call) and getattr(inner.func, "attr", "") == "__init__":
                        yield label(path), bases[0], inner
            elif isinstance(node, ast.Call):
                yield label(path), getattr(node.func, "id", getattr(node.func, "attr", "")), node


def raised() -> dict[str, set[str]]:
    """{code: kinds} of every error the source makes."""
    found: dict[str, set[str]] = {}
    for _, name, call in calls():
        if name in MAKERS and call.args:
            for code in texts(call.args[0]):
                found.setdefault(code, set()).add(MAKERS[name])
    return found


def explained() -> dict[str, set[str]]:
    """{code: kinds} of the manual."""
    return {code: set(kinds.split(", ")) for code, kinds, _ in rows(OPERATIONS, "code", "kind")}


def outcomes() -> set[str]:
    return {code for code, _ in rows(OPERATIONS, "code", "meaning")}


def matching(pattern: str, codes: set[str]) -> set[str]:
    """The codes that a code with ``*`` can be; a part in capitals stands for anything."""
    shape = re.compile(re.escape(pattern).replace(r"\*", "[A-Za-z0-9_-]+"))
    return {code for code in codes if shape.fullmatch(code)}


def test_every_error_code_is_explained_with_what_the_node_does() -> None:
    source, manual = raised(), explained()
    assert len(source) > 80
    for code, kinds in source.items():
        found = matching(code, set(manual))
        assert found, f"{code} is not explained in operations.md"
        for one in found:
            if "*" not in code:
                assert manual[one] == kinds, f"{one}: the manual says {manual[one]}, the source {kinds}"


def test_the_manual_explains_no_code_that_is_gone() -> None:
    source = raised()
    for code in explained():
        assert any(matching(one, {code}) for one in source), f"{code} is in operations.md and nowhere else"


def test_no_code_is_explained_twice() -> None:
    codes = re.findall(r"^\| `([a-z]+\.?[^`]*)` \|", OPERATIONS[OPERATIONS.index("## Error codes") :], re.MULTILINE)
    assert sorted(codes) == sorted(set(codes))


def test_every_reason_to_deny_or_to_allow_is_explained() -> None:
    codes = {value for value in vars(sources).values() if isinstance(value, str) and value.startswith("consent.")}
    assert codes == {code for code in outcomes() if code.startswith("consent.")}


def test_everything_a_trainer_can_say_is_explained() -> None:
    named = {account.code for account in answer._FAILURES.values()} | set(answer._WARNINGS.values())
    for path in sorted((ROOT / "edge_node" / "forward").glob("*.py")):
        named |= set(re.findall(r'"(trainer\.[a-z-]+)"', read(path)))
    named |= {"trainer.http-STATUS"}
    assert named == {code for code in outcomes() if code.startswith("trainer.")}


def test_every_reason_of_triage_is_explained() -> None:
    rooms = ("geometry", "quality", "decode", "select", "rescale", "film", "radiomics")
    named = {f"quality.{name}" for name in MEASURES}
    for path in sorted((ROOT / "edge_node" / "triage").glob("*.py")):
        named |= set(
            re.findall(r'"((?:geometry|quality|decode|select|rescale|film|radiomics)\.[a-z0-9-]+)[":]', read(path))
        )
    assert len(named) > 15
    rooms = ("geometry", "quality", "decode", "select", "rescale", "film", "radiomics")
    assert named == {code for code in outcomes() if code.split(".")[0] in rooms}
    for _, name, call in calls():
        if name == "TriageResult" and len(call.args) > 1:
            for text in texts(call.args[1]):
                assert text.split(":")[0] in outcomes(), text


def test_every_outcome_of_a_step_is_explained() -> None:
    known = outcomes()
    for place, name, call in calls():
        if name == "Done" and place.startswith("edge_node/service/") and call.args:
            for code in texts(call.args[0]):
                assert matching(code, known) or code == "*.*", f"{place}: {code}"
    assert {"evidence.stored", "evidence.nothing-to-store"} <= known
    ups = re.findall(r'^    [A-Z_]+ = "([a-z-]+)"$', read(ROOT / "edge_node" / "worklist" / "ups.py"), re.MULTILINE)
    for writer in ("ups", "ups_rs"):
        assert {f"{writer}.{word}" for word in ups} == {code for code in known if code.startswith(f"{writer}.")}
    orders = {f"hl7_order.{outcome}" for outcome in OrderOutcome}
    assert orders == {code for code in known if code.startswith("hl7_order.")}


def test_every_reason_to_hold_pixels_back_is_explained() -> None:
    tree = ast.parse(read(ROOT / "edge_node" / "deid" / "risk.py"))
    returned = {
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and node.value is not None
        for text in texts(node.value)
        if text
    }
    assert risk.__doc__
    assert returned == {reason for reason, _ in rows(read(MANUAL / "privacy.md"), "risk")}


def test_every_error_code_that_a_page_names_exists() -> None:
    known = set(explained()) | outcomes()
    families = {code.split(".")[0] for code in explained()} - {"consent", "forward", "receive", "triage", "worklist"}
    for page in sorted(MANUAL.glob("*.md")):
        for span in inline(read(page)):
            family = span.split(".")[0]
            if family in families and re.fullmatch(r"[a-z]+\.[a-z]+-[a-z-]+", span):
                assert span in known, f"{page.name}: {span}"
