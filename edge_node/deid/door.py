"""The door: an identified instance goes in; a clean, verified one and the identity it was parted from come out."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from edge_node.deid import apart, bitstream, harden, verify, wire
from edge_node.deid.apart import Pixels
from edge_node.deid.header import Header, Headers
from edge_node.deid.identity import envelope_of, order_priority
from edge_node.deid.method import CODE_MEANINGS
from edge_node.deid.plan import Plan
from edge_node.deid.pseudonym import Pseudonyms, instance_key_of, patient_key, study_key_of
from edge_node.deid.recipe import Recipe, combine, load
from edge_node.deid.risk import pixel_risk
from edge_node.deid.scene import ISSUER, PATIENT_ID, STUDY_UID, Scene, set_scene
from edge_node.deid.verify_apart import Apart, verify_apart
from edge_node.deid.wire import UNDEFINED, Element, Malformed, Node, Syntax, TooLarge
from edge_node.domain.body import Body
from edge_node.domain.errors import EdgeNodeError, Quarantine, Stop
from edge_node.domain.study import Deidentified, DeidentifiedInstance, Derivation, IdentifiedInstance, RecipeId

IMPLEMENTATION = "2.25.203163549386229463741279512583459203741"
_FILE_META = Syntax()  # explicit little endian (PS3.10 7.1)
SOP_CLASS, SOP_UID, SERIES_UID = 0x00080016, 0x00080018, 0x0020000E
_PREAMBLE = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0"  # and the length of the group
MODALITY, BODY_PART = 0x00080060, 0x00180015
Made = TypeVar("Made")
PEEKED = 1 << 20  # bytes in which what identifies an object is looked for first
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")


class Deidentifier:
    """One recipe and one site key, ready for many instances. Built once a process; calls may run in parallel.

    `site_key` has at least 16 bytes; `version` is the product's version, which (0012,0063) of clean objects names;
    `variables` are what ``var:`` stands for in the recipe; `base` is a recipe that `recipe` stands on (`combine`);
    `label` is a trial's, for pseudonyms of its own (`Pseudonyms`).
    Raises Stop("deid.recipe-invalid") with file and line, Stop("deid.site-key") for a key that is too short.
    """

    recipe: Recipe
    recipe_id: RecipeId

    def __init__(
        self,
        recipe: Path,
        site_key: bytes,
        *,
        version: str,
        variables: Mapping[str, str] | None = None,
        base: Path | None = None,
        label: str = "",
    ) -> None:
        if len(site_key) < 16:
            raise Stop("deid.site-key", "the site key is shorter than 16 bytes", hint="edge-node init")
        self._site_key = bytes(site_key)
        self._version = version
        loaded = load(recipe, variables or ())
        self.recipe = combine(load(base, variables or ()), loaded) if base is not None else loaded
        self._plan = Plan(self.recipe, variables)
        self._claimed = [_code(value) for value in self._plan.claims]
        self._encoded: dict[Syntax, Element] = {}  # what the node says of its method is the same in every object
        self._metas: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._headers = Headers()
        self._pseudonyms = Pseudonyms(self._site_key, label)
        self.recipe_id = RecipeId(recipe.stem, self._plan.sha256, label)

    @property
    def claims(self) -> tuple[str, ...]:
        """Codes of CID 7050 that clean objects carry."""
        return self._plan.claims

    def deidentify(self, instance: IdentifiedInstance) -> Deidentified:
        """De-identify and verify one instance and part it from its identity; raises as `clean`."""
        return self._guarded(instance, self._deidentify)

    def clean(self, instance: IdentifiedInstance) -> DeidentifiedInstance:
        """De-identify and verify one instance, in memory; equal input gives equal bytes.

        Raises Quarantine for what cannot be parsed (``deid.malformed``), has no place in a study (``deid.no-uid``,
        ``deid.uid-mismatch``), cannot be handled (``deid.unsupported-…``, ``deid.pixel-data``) or does not pass the
        check (``deid.residual-…``, ``deid.unverifiable``). No message carries a value.
        """
        return self._guarded(instance, self._clean)[0]

    def _guarded(self, instance: IdentifiedInstance, work: Callable[[IdentifiedInstance], Made]) -> Made:
        try:
            return work(instance)
        except EdgeNodeError as error:
            error.study = error.study or peek_study_key(instance, self._site_key)
            raise
        except TooLarge:
            raise Quarantine(
                "deid.too-large",
                "what has to be in memory as a whole (a deflated data set, all but the pixels) has more than 256 MB",
                hint="edge-node study show; let the modality send it in explicit VR little endian",
                study=peek_study_key(instance, self._site_key),
            ) from None
        except Malformed as error:
            reason = str(error)
        except (RecursionError, MemoryError):
            reason = "the object is nested too deeply or too large"
        except (ValueError, KeyError, IndexError, OverflowError, struct.error):
            # Not expected, but input decides what happens here: one odd object must not stop the receiver.
            reason = "the object breaks a rule that the reader relies on"
        raise Quarantine(
            "deid.malformed",
            f"the data set cannot be read: {reason}",
            hint="edge-node study show; ask the modality to send again",
            study=peek_study_key(instance, self._site_key),
        ) from None

    def _deidentify(self, instance: IdentifiedInstance) -> Deidentified:
        made, source, scene = self._clean(instance)
        names = self._pseudonyms
        return Deidentified(
            made,
            envelope_of(source, scene.big),
            names.source_digest(instance.transfer_syntax, instance.source.chunks(0, instance.source.size)),
            Derivation(names.key_id, names.label, scene.patient_pseudonym, scene.shift_days),
            instance_key_of(self._site_key, instance.sop_instance),
        )

    def _clean(self, instance: IdentifiedInstance) -> tuple[DeidentifiedInstance, Node, Scene]:
        """The clean object; the object as received, and what was known of it on the way."""
        syntax = bitstream.syntax_of(instance.transfer_syntax)
        header = Header(self._headers)
        source, pixels = apart.read(instance.source, syntax, header)
        study, series, sop = (_uid(source, tag) for tag in (STUDY_UID, SERIES_UID, SOP_UID))
        sop_class = _uid(source, SOP_CLASS)
        if (sop_class, sop) != (instance.sop_class, instance.sop_instance):
            raise Quarantine(
                "deid.uid-mismatch",
                "SOP Class or Instance UID of the data set are not those of the C-STORE request (PS3.4 B.2.2)",
                hint="check the sender",
            )
        harden.refuse_object(sop_class, structured=self._plan.structured)
        scene = set_scene(source, self._pseudonyms, header)
        scene.big = syntax.big
        clean = self._plan.scrub(source, scene, header)
        far = pixels if isinstance(pixels, Pixels) else None
        bitstream.clean_pixels(source, clean, syntax, instance.transfer_syntax, apart=far.tag if far else 0)
        samples = apart.clean_pixels(source, clean, far, syntax, instance.transfer_syntax) if far else None
        self._say_what_was_done(clean, syntax)
        kept = self._plan.kept
        named = ((STUDY_UID, study), (SERIES_UID, series), (SOP_UID, sop))
        uids = [old if tag in kept else self._pseudonyms.uid(old) for tag, old in named]
        for tag, uid in zip((STUDY_UID, SERIES_UID, SOP_UID), uids, strict=True):
            clean[tag] = Element(tag, "UI", uid.encode())
        clean[SOP_CLASS] = Element(SOP_CLASS, "UI", sop_class.encode())
        beginning = self._beginning(sop_class, uids[2], instance.transfer_syntax)
        body = self._checked(instance, clean, beginning, syntax, pixels, samples)
        charset = scene.charset
        patient, issuer = (charset.text(source[tag].value) if tag in source else "" for tag in (PATIENT_ID, ISSUER))
        made = DeidentifiedInstance(
            body=body,
            study_key=study_key_of(self._site_key, study),
            study_uid=uids[0],
            series_uid=uids[1],
            sop_uid=uids[2],
            sop_class=sop_class,
            transfer_syntax=instance.transfer_syntax,
            modality=wire.ascii_text(clean, MODALITY),
            body_part=wire.ascii_text(clean, BODY_PART),
            pixel_risk=pixel_risk(source, sop_class, instance.transfer_syntax),
            patient_key=patient_key(self._site_key, patient, issuer),
            order_priority=order_priority(source),
            recipe=self.recipe_id,
        )
        return made, source, scene

    def _checked(
        self,
        instance: IdentifiedInstance,
        clean: Node,
        beginning: bytes,
        syntax: Syntax,
        pixels: Pixels | bytes,
        samples: Body | None,
    ) -> Body:
        """The clean file, after the independent check of it."""
        kept, kept_private = self._plan.kept, self._plan.kept_private
        if isinstance(pixels, bytes):
            part10 = b"".join((beginning, *wire.encode_parts(clean, syntax)))
            verify.verify(pixels, instance.transfer_syntax, part10, kept, kept_private)
            return Body([part10])
        assert samples is not None
        length = samples.size if pixels.fragments is None else UNDEFINED
        head, tail = wire.encode_around(clean, pixels.tag, length, syntax)
        source, value = instance.source, pixels.value
        verify_apart(
            Apart(source.read(0, value.start), Body([value]), source.read(value.stop, source.size)),
            instance.transfer_syntax,
            Apart(beginning + head, samples, tail),
            kept,
            kept_private,
        )
        return Body([beginning + head, *samples.parts, tail])

    def _say_what_was_done(self, clean: Node, syntax: Syntax) -> None:
        """(0012,0062..64) and (0028,0303) (PS3.15 E.1.1); (0028,0301) is not ours to say before pixels were checked."""
        method = f"edge-node {self._version}\\recipe {self.recipe_id.name[:20]} {self.recipe_id.sha256[:32]}"
        modified = "MODIFIED" if self._plan.shifts_dates else "REMOVED"
        modified = "UNMODIFIED" if 0x00080020 in self._plan.kept else modified
        written = [(0x00120062, "CS", "YES"), (0x00120063, "LO", method), (0x00280303, "CS", modified)]
        for tag, vr, text in written:
            clean[tag] = Element(tag, vr, text.encode())
        clean.pop(0x00120064, None)
        if self._claimed:
            said = self._encoded.get(syntax)
            if said is None:
                said = self._encoded[syntax] = Element(0x00120064, "SQ", wire.encode_items(self._claimed, syntax))
            clean[0x00120064] = said

    def _beginning(self, sop_class: str, sop_uid: str, transfer_syntax: str) -> bytes:
        """Of a PS3.10 file: empty preamble and a file meta group that says nothing of the sender."""
        before, after = self._meta(sop_class, transfer_syntax)
        uid = sop_uid.encode()
        uid += b"\0" * (len(uid) & 1)
        named = b"\2\0\3\0UI" + len(uid).to_bytes(2, "little") + uid
        length = struct.pack("<L", len(before) + len(named) + len(after))
        return b"".join((_PREAMBLE, length, before, named, after))

    def _meta(self, sop_class: str, transfer_syntax: str) -> tuple[bytes, bytes]:
        """The file meta group before and after the SOP Instance UID: the same in all instances of a kind."""
        known = self._metas.get((sop_class, transfer_syntax))
        if known is None:
            before = {0x00020001: Element(0x00020001, "OB", b"\0\1")}
            before[0x00020002] = Element(0x00020002, "UI", sop_class.encode())
            after = {0x00020010: Element(0x00020010, "UI", transfer_syntax.encode())}
            after[0x00020012] = Element(0x00020012, "UI", IMPLEMENTATION.encode())
            after[0x00020013] = Element(0x00020013, "SH", f"EDGE_NODE_{self._version}"[:16].encode())
            known = wire.encode(before, _FILE_META), wire.encode(after, _FILE_META)
            if len(self._metas) < 1000:  # SOP classes come from outside
                self._metas[sop_class, transfer_syntax] = known
        return known


def _code(value: str) -> Node:
    parts = ((0x00080100, "SH", value), (0x00080102, "SH", "DCM"), (0x00080104, "LO", CODE_MEANINGS[value]))
    return {tag: Element(tag, vr, text.encode()) for tag, vr, text in parts}


def _uid(node: Node, tag: int) -> str:
    uid = wire.ascii_text(node, tag)
    if not _UID.fullmatch(uid) or len(uid) > 64:
        raise Quarantine("deid.no-uid", f"{wire.tag_name(tag)} is missing or no UID", hint="check the sender")
    return uid


def peek_study_key(instance: IdentifiedInstance, site_key: bytes) -> str | None:
    """Study key of an object that may be broken; None if no Study Instance UID can be found. Never raises."""
    try:
        uid = _peeked(instance, PEEKED) or (_peeked(instance, 64 * PEEKED) if instance.source.size > PEEKED else "")
    except Exception:  # the object is broken already; there is nothing left to say about it
        return None
    return study_key_of(site_key, uid) if uid else None


def _peeked(instance: IdentifiedInstance, size: int) -> str:
    syntax = bitstream.syntax_of(instance.transfer_syntax)
    data = instance.source.read(0, size)
    data = wire.inflate_some(data) if syntax.deflated else data
    uid = wire.ascii_text(wire.parse_some(data, syntax), STUDY_UID)
    return uid if _UID.fullmatch(uid) else wire.search_uid(data, STUDY_UID, syntax)
