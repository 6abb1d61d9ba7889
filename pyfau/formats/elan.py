"""ELAN files (EAF 3.0): a tier for each action unit of each face, an annotation for each event."""

from __future__ import annotations

import mimetypes
import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pyfau import __version__
from pyfau.errors import InputError
from pyfau.events import events
from pyfau.result import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.result import AUResult, StrPath

_TIER = re.compile(r"(AU\d+) face (\d+)")
_TYPE = "action unit"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COLUMNS = {"face_id": "int64", "au": "str", "onset_s": "float64", "offset_s": "float64", "peak": "float64"}


def write_elan(result: AUResult, path: StrPath, *, min_frames: int = 1, join_frames: int = 0) -> Path:
    """See `AUResult.to_elan`."""
    found = events(result, min_frames=min_frames, join_frames=join_frames)
    if found[["onset_s", "offset_s"]].isna().any(axis=None):
        raise InputError(f"cannot write {path}: ELAN needs times, and the rows have none; score pictures with fps")
    found["start"] = (found["onset_s"] * 1000).round().clip(lower=0).astype("int64")
    found["end"] = (found["offset_s"] * 1000).round().astype("int64").clip(lower=found["start"] + 1)
    # Each end of an annotation has a slot of its own: annotations that share one would move together in ELAN.
    ends = sorted((time, name, i) for name in ("start", "end") for i, time in found[name].items())
    slots = {(name, i): f"ts{number}" for number, (_, name, i) in enumerate(ends, 1)}

    document = ET.Element("ANNOTATION_DOCUMENT")
    document.attrib = {
        "AUTHOR": "pyfau",
        "DATE": datetime.now().astimezone().isoformat(timespec="seconds"),
        "FORMAT": "3.0",
        "VERSION": "3.0",
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
    }
    header = ET.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    media = (result.metadata.get("input") or {}).get("path") or ""
    kind = mimetypes.guess_type(media)[0] or ""
    if kind.startswith("video/") and "://" not in media:
        links = {"MEDIA_URL": f"file:///{Path(media).as_posix().removeprefix('/')}"}
        with suppress(ValueError):  # Windows: from one drive to another there is no way
            links["RELATIVE_MEDIA_URL"] = f"./{Path(os.path.relpath(media, Path(path).absolute().parent)).as_posix()}"
        ET.SubElement(header, "MEDIA_DESCRIPTOR", {name: _xml(text) for name, text in links.items()}, MIME_TYPE=kind)
    ET.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(len(found))
    order = ET.SubElement(document, "TIME_ORDER")
    for time, name, i in ends:
        ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slots[name, i], TIME_VALUE=str(time))
    model = _xml(" ".join(["pyfau", __version__, str(result.metadata.get("model", ""))]).strip())
    for face_id in sorted({i for i in result.face_ids if i is not None}):
        for au in result.aus:
            attributes = {"ANNOTATOR": model, "LINGUISTIC_TYPE_REF": _TYPE, "PARTICIPANT": f"face {face_id}"}
            tier = ET.SubElement(document, "TIER", attributes, TIER_ID=f"{au} face {face_id}")
            for event in found[(found["face_id"] == face_id) & (found["au"] == au)].itertuples():
                refs = {"TIME_SLOT_REF1": slots["start", event.Index], "TIME_SLOT_REF2": slots["end", event.Index]}
                annotation = ET.SubElement(tier, "ANNOTATION")
                aligned = ET.SubElement(annotation, "ALIGNABLE_ANNOTATION", refs, ANNOTATION_ID=f"a{event.Index + 1}")
                ET.SubElement(aligned, "ANNOTATION_VALUE").text = f"{event.peak:.3f}"
    ET.SubElement(
        document, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID=_TYPE, TIME_ALIGNABLE="true"
    )
    ET.indent(document, "    ")
    text = ET.tostring(document, "unicode")
    return write_whole(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def read_elan(path: StrPath) -> pd.DataFrame:
    """Read the events of a file that `AUResult.to_elan` wrote, for example after an annotator has corrected it.

    Tiers count whose name is like "AU12 face 0"; others are passed over.

    Returns:
        face_id (int64), au (str), onset_s, offset_s (float64), peak (float64; NaN where an annotation is no number), in
        the order of the tiers and, in each, of time.

    Raises:
        InputError: There is no such file, or it is not of this kind.
    """
    import pandas as pd

    rows = []
    try:
        document = ET.parse(path).getroot()
        if document.tag != "ANNOTATION_DOCUMENT":
            raise ValueError(f"expected ANNOTATION_DOCUMENT, got {document.tag}")
        # Annotations between two others, in tiers that an annotator added, have slots without a time.
        timed = [slot.attrib for slot in document.iter("TIME_SLOT") if "TIME_VALUE" in slot.attrib]
        slots = {slot["TIME_SLOT_ID"]: int(slot["TIME_VALUE"]) for slot in timed}
        for tier in document.iter("TIER"):
            if match := _TIER.fullmatch(tier.attrib["TIER_ID"]):
                spans = [
                    (
                        *(slots[item.attrib[f"TIME_SLOT_REF{i}"]] / 1000 for i in (1, 2)),
                        item.findtext("ANNOTATION_VALUE"),
                    )
                    for item in tier.iter("ALIGNABLE_ANNOTATION")
                ]
                rows += [(int(match[2]), match[1], *span) for span in sorted(spans, key=lambda span: span[:2])]
    except (OSError, ET.ParseError, KeyError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"cannot read {path} as a file of ELAN: {reason}") from None
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    table["peak"] = pd.to_numeric(table["peak"], errors="coerce")
    typed: pd.DataFrame = table.astype(_COLUMNS)
    return typed


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold, which names of files can."""
    return _NOT_XML.sub("\ufffd", text)
