from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_node.demo.pictures import png_from_hu, png_from_rgb
from edge_node.demo.report import Check, render, write_report
from edge_node.domain.finding import ADVISORY

from .sample_report import sample

VOID = {"meta", "img", "br", "line", "rect", "path", "circle"}


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def picture() -> str:
    return png_from_rgb(2, 3, bytes(range(18)))


def _parsed(html: str) -> _Balance:
    parser = _Balance()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path, picture: str) -> None:
    html = write_report(sample(picture), tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    parsed = _parsed(html)
    assert parsed.sources
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert not re.search(r"https?://|@import|url\(|<script|<link", html)


def test_every_study_and_every_reason_is_on_the_page(picture: str) -> None:
    data = sample(picture)
    text = " ".join(_parsed(render(data)).text)
    for study in data.studies:
        assert study.patient in text
        assert study.accession in text
    for held in data.held:
        assert held.reason in text
        assert held.explanation in text


def test_advice_is_called_advice_wherever_the_model_speaks(picture: str) -> None:
    data = sample(picture)
    html = render(data)
    for name in ("reading-list", "key-images"):
        section = html.split(f'aria-labelledby="{name}"')[1].split("</section>")[0]
        assert ADVISORY in section
    text = " ".join(_parsed(html).text)
    assert data.models[0].label in text
    assert "fictional" in text
    assert not re.search(r"\bnormal\b|\bnegative\b", text, re.IGNORECASE)


def test_values_cannot_break_out_of_the_page(picture: str) -> None:
    data = sample(picture)
    evil = '<img src="http://x">&"\''
    study = replace(data.studies[0], patient=evil, description=evil)
    html = render(replace(data, studies=(study, *data.studies[1:])))
    assert '<img src="http' not in html
    _parsed(html)


def test_a_broken_promise_is_the_headline_of_its_section(picture: str) -> None:
    html = render(replace(sample(picture), checks=(Check("Nothing was lost", False, "1 of 2"),)))
    assert "1 promise was broken" in html
    assert "Every promise was kept" not in html


def test_the_headline_does_not_claim_an_order_that_is_not_there(picture: str) -> None:
    data = sample(picture)
    html = render(replace(data, worklist_after=data.worklist_after[::-1]))
    assert "4 moved to the top" in render(data)
    assert "4 moved to the top" not in html


def test_a_run_without_findings_or_write_back_still_makes_a_page(picture: str) -> None:
    data = replace(sample(picture), worklist_after=(), key_images=(), deid=None, held=(), models=(), studies=())
    _parsed(render(replace(data, worklist_before=())))


def test_the_data_are_json_with_the_waiting_time_of_each_study(picture: str) -> None:
    data = sample(picture)
    plain = json.loads(data.to_json())
    assert plain["studies"][5]["seconds_to_worklist"] == pytest.approx(3.1)
    assert plain["studies"][7]["seconds_to_worklist"] is None
    assert plain["studies"][5]["patient"] == data.studies[5].patient


def test_a_slice_is_windowed_for_the_brain() -> None:
    png = base64.b64decode(png_from_hu(np.array([[-1000, 0, 40, 80, 3000]], np.int16)))
    assert list(Image.open(BytesIO(png)).tobytes()) == [0, 0, 127, 255, 255]
