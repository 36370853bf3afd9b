"""Fictional patients of the toy hospital, in the character sets that real hospitals use.

The ideographic names are the standard's own examples (PS3.5 Annexes H and I), the others are plainly invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256

import numpy as np


@dataclass(frozen=True, slots=True)
class Identity:
    """One patient and one order: everything here must be gone from what leaves the hospital."""

    name: str  # DICOM PN
    charset: tuple[str, ...]  # Specific Character Set (0008,0005)
    sex: str
    birth_date: date
    patient_id: str
    issuer: str
    other_id: str
    accession: str
    placer_order: str
    filler_order: str
    procedure_id: str
    study_id: str
    admission_id: str
    address: str
    phone: str
    referring: str
    requesting: str
    operator: str
    institution: str
    station: str

    @property
    def shown_name(self) -> str:
        """The name as a worklist shows it: family name first, ideographs in brackets."""
        groups = [" ".join(part for part in group.split("^") if part) for group in self.name.split("=")]
        return groups[0] + (f" ({groups[1]})" if len(groups) > 1 and groups[1] else "")

    def needles(self) -> list[str]:
        """Every identifying text, whole and by name parts."""
        texts = [
            self.name,
            *(group for group in self.name.split("=")),
            *(part for group in self.name.split("=") for part in group.split("^")),
            self.birth_date.strftime("%Y%m%d"),
            self.patient_id,
            self.issuer,
            self.other_id,
            self.accession,
            self.placer_order,
            self.filler_order,
            self.procedure_id,
            self.study_id,
            self.admission_id,
            self.address,
            self.phone,
            *self.referring.split("^"),
            *self.requesting.split("^"),
            *self.operator.split("^"),
            self.institution,
            self.station,
        ]
        return [text for text in dict.fromkeys(texts) if len(text) > 3 or not text.isascii()]


_PEOPLE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Żółć-Zmyślona^Łucja", ("ISO_IR 192",), "F"),
    ("Yamada^Tarou=山田^太郎=やまだ^たろう", ("", "ISO 2022 IR 87"), "M"),
    ("Musterfrau-Übung^Änne", ("ISO_IR 100",), "F"),
    ("Przykładowski^Świętosław", ("ISO_IR 101",), "M"),
    ("Exemple-Fictif^Zoé Éloïse", ("ISO_IR 100",), "F"),
    ("Παράδειγμα^Ελένη", ("ISO_IR 126",), "F"),
    ("Hong^Gildong=洪^吉洞=홍^길동", ("", "ISO 2022 IR 149"), "M"),
    ("Примеров^Вымысел", ("ISO_IR 144",), "M"),
    ("Wang^XiaoDong=王^小东", ("GB18030",), "M"),
    ("Fictional-Sample^Quentin^Q", (), "M"),
    ("O'Imaginary^Niamh", ("ISO_IR 192",), "F"),
    ("Invención-Ñandú^Begoña", ("ISO_IR 192",), "F"),
    ("Pretend^Beatrix", (), "F"),
    ("Makebelieve^Ulysses", (), "M"),
    ("Breathless-Specimen^Ottoline", (), "F"),
)
_HOSPITALS = ("St Elsewhere Demo Hospital", "Toyville General (Demo)", "Castle-in-the-Air Clinic (Demo)")
_DOCTORS = ("Fabricatus^Odalys", "Nonesuchova^Peregrine", "Madeupsky^Theodora", "Notrealska^Ignatia")


def identity(seed: int, number: int) -> Identity:
    """The patient and order of the `number`-th study (0-based); the same `seed` gives the same person."""
    name, charset, sex = _PEOPLE[number % len(_PEOPLE)]
    rng = np.random.default_rng([seed, number, 7])

    def digits(label: str, count: int) -> str:
        return str(int(sha256(f"{seed}|{number}|{label}".encode()).hexdigest(), 16))[-count:]

    return Identity(
        name=name,
        charset=charset,
        sex=sex,
        birth_date=date(1931, 1, 1) + timedelta(days=int(rng.integers(0, 70 * 365))),
        patient_id=f"TOY{digits('pid', 8)}",
        issuer=f"TOYHOSP{digits('issuer', 3)}",
        other_id=f"OLDMRN{digits('other', 7)}",
        accession=f"ACC{digits('accession', 9)}",
        placer_order=f"PLC{digits('placer', 8)}",
        filler_order=f"FIL{digits('filler', 8)}",
        procedure_id=f"RPID{digits('procedure', 7)}",
        study_id=f"SID{digits('study', 7)}",
        admission_id=f"VISIT{digits('visit', 7)}",
        address=f"{digits('house', 3)} Nowhere Lane, Toyville",
        phone=f"+00 555 {digits('phone', 7)}",
        referring=_DOCTORS[number % len(_DOCTORS)] + f"^R{digits('ref', 4)}",
        requesting=_DOCTORS[(number + 1) % len(_DOCTORS)] + f"^Q{digits('req', 4)}",
        operator=f"Operator{digits('op', 4)}^Toy",
        institution=_HOSPITALS[number % len(_HOSPITALS)],
        station=f"TOYSTN{digits('station', 4)}",
    )
