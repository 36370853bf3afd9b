"""The codes by which an object says how it was de-identified: (0012,0064), CID 7050 (PS3.16)."""

from __future__ import annotations

METHOD_CODES = 0x00120064  # ADD DeidentificationMethodCodeSequence 113100,113105,…
# CID 7050 (PS3.16). The pixel codes are written by the step that did it.
CODE_MEANINGS = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113103": "Clean Graphics Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
    "113106": "Retain Longitudinal Temporal Information Full Dates Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113110": "Retain UIDs Option",
    "113111": "Retain Safe Private Option",
    "113112": "Retain Institution Identity Option",
}
CLAIMS = tuple(code for code in CODE_MEANINGS if code not in ("113101", "113102"))
