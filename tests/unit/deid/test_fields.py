"""Which attributes a field or an expander of the recipe language means."""

from __future__ import annotations

import pytest

from edge_node.deid.fields import Field, keywords, parse_field, regex_trouble

STATION, DATE, TIME, TEXT, REQUESTS = 0x00081010, 0x00080020, 0x00080030, 0x00081030, 0x00400275


def matched(text: str) -> set[str]:
    """Which of some attributes a field means."""
    field = parse_field(text)
    some = {
        "station": (STATION, "SH"), "date": (DATE, "DA"), "time": (TIME, "TM"), "text": (TEXT, "LO"), "rows":
        (0x00280010, "US"), "unknown": (0x00104444, "UN"),
    }  # fmt: skip
    return {name for name, one in some.items() if field.matches is not None and field.matches(*one)}


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("ALL", {"station", "date", "time", "text", "rows", "unknown"}),
        ("all", {"station", "date", "time", "text", "rows", "unknown"}),
        ("allfields", {"station", "date", "time", "text", "rows", "unknown"}),
        ("contains:study", {"date", "time", "text"}),
        ("contains:Study Date", {"date"}),
        ("contains:0008,0020", {"date"}),
        ("contains:00080020", {"date"}),
        ("contains:dat|tim", {"date", "time"}),
        ("startswith:dat|stat", {"station"}),
        ("startswith:study|stat", {"station", "date", "time", "text"}),
        ("endswith:date|tion", {"date", "text"}),
        ("endswith:name", {"station"}),
        ("STARTSWITH:study", {"date", "time", "text"}),
        ("except:study|station", {"rows", "unknown"}),
        ("exceptfields:StudyDate|Rows", {"station", "time", "text", "unknown"}),
        ("select:VR:DA", {"date"}),
        ("select:vr:da", {"date"}),
        ("select:GROUP:0008", {"station", "date", "time", "text"}),
        ("select:GROUP:0x0028", {"rows"}),
        ("select:group:8", {"station", "date", "time", "text"}),
        ("contains:4444", {"unknown"}),
        ("contains:^$", {"unknown"}),
        ("contains:X{4}", set()),
    ],
)
def test_an_expander_means_these_attributes(text: str, means: set[str]) -> None:
    assert matched(text) == means


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("StudyDate", Field("tag", tag=DATE)),
        ("(0008,0020)", Field("tag", tag=DATE)),
        ("00080020", Field("tag", tag=DATE)),
        ("(0008,103e)", Field("tag", tag=0x0008103E)),
        ("CurveDescription", Field("tag", tag=0x50000022)),
        ("OverlayRows", Field("tag", tag=0x60000010)),
        ('(0019,"SIEMENS MR",0c)', Field("private", "SIEMENS MR", 0x0019000C)),
        ("RequestAttributesSequence__StudyDate", Field("tag", tag=DATE, path=((REQUESTS, -1),))),
        ("RequestAttributesSequence__2__StudyDate", Field("tag", tag=DATE, path=((REQUESTS, 2),))),
        (
            "(0040,0275)__0__RequestAttributesSequence__12__StudyDate",
            Field("tag", tag=DATE, path=((REQUESTS, 0), (REQUESTS, 12))),
        ),
        ("fields:mine", Field("fields", "mine")),
        ("values:mine", Field("values", "mine")),
    ],
)
def test_a_field_is_read_as_deids_documents_write_it(text: str, field: Field) -> None:
    assert parse_field(text) == field


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("ALL", "all", ""),
        ("except:Rows|Columns", "all", "Rows|Columns"),
        ("exceptfields:Rows|Columns", "all", "Rows|Columns"),
        ("contains:Rows", "pattern", "Rows"),
        ("startswith:Rows", "pattern", "Rows"),
        ("select:vr:da", "pattern", "VR:DA"),
        ("select:group:0x8", "pattern", "GROUP:0X8"),
    ],
)
def test_an_expander_says_what_it_was_made_of(text: str, kind: str, said: str) -> None:
    field = parse_field(text)
    assert (field.kind, field.text, field.path) == (kind, said, ())


def test_keywords_are_those_of_the_dictionary() -> None:
    assert {"PatientName", "Rows"} <= set(keywords())
    assert "" not in keywords()


@pytest.mark.parametrize(
    ("expression", "explodes"),
    [
        ("a+", False),
        ("a+b*c?", False),
        ("(a+)+", True),
        ("(a{1,9})+", True),
        ("(?:a+|b){2,20}", True),
        ("(a?){1,20}", True),
        ("(ab|c){1,20}", True),
        ("(ab|c){1,8}", False),
        ("(a+){1,8}", False),
        ("(ab){1,20}", False),
        ("((ab){3}){1,20}", False),
        ("(a|b)c", False),
        ("(a|(b+)+)c", True),
        ("(a+)\\1", True),
        ("(a)?(?(1)b|c)", True),
        ("(?=(a+)+)b", True),
        ("(?!a+)b", False),
        ("(?=a+)b", False),
        ("(?P<x>a+?)b", False),
        ("(a+?)+?", True),
        ("((a+)+)", True),
        ("(ab|c){1,9}", False),
        ("(ab|c){1,10}", True),
        ("(ab|c)*+", True),
        ("(?!(a+)+)b", True),
        ("((?=a+)b){1,20}", True),
    ],
)
def test_a_repeat_inside_a_repeat_is_seen_wherever_it_stands(expression: str, explodes: bool) -> None:
    said = "the expression can take for ever (a repeat inside a repeat)" if explodes else ""
    assert regex_trouble(expression) == said
    assert regex_trouble(expression + "(") == "the expression is no regular expression"
