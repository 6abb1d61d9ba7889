"""ELAN files (EAF 3.0): a tier for each action unit of each face, an annotation for each event."""

from __future__ import annotations

import math
import mimetypes
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from pyfau.analysis.events import EventRules
from pyfau.errors import InputError
from pyfau.files import read_file, reason_of
from pyfau.limits import LIMITS, Limits
from pyfau.tables.metadata import write_whole
from pyfau.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from pyfau.tables.rows import AURows
    from pyfau.types import StrPath

_MOST_DEPTH = 32
_MOST_ELEMENTS = 2_000_000
_TIER = re.compile(r"(AU\d+[LR]?) face (\d+)")
_TYPE = "action unit"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COLUMNS = {
    "face_id": "int64",
    "au": "str",
    "onset_s": "float64",
    "offset_s": "float64",
    "peak": "float64",
}


def write_elan(result: AURows, path: StrPath, rules: EventRules) -> Path:
    """See `AUResult.to_elan`."""
    found = rules.find_timed(result, path, "ELAN")
    found["start"] = (found["onset_s"] * 1000).round().clip(lower=0).astype("int64")
    found["end"] = (found["offset_s"] * 1000).round().astype("int64").clip(lower=found["start"] + 1)
    # Each end of an annotation has its own slot: annotations that share one would move together
    # in ELAN.
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
    _add_header(document, result, Path(path), len(found))
    order = ET.SubElement(document, "TIME_ORDER")
    for time, name, i in ends:
        ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slots[name, i], TIME_VALUE=str(time))
    _add_tiers(document, result, rules.names(result.aus), found, slots)
    ET.SubElement(
        document,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID=_TYPE,
        TIME_ALIGNABLE="true",
    )
    ET.indent(document, "    ")
    text = ET.tostring(document, "unicode")
    return write_whole(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def _add_header(document: ET.Element, result: AURows, path: Path, count: int) -> None:
    """Add the header, with a link to the video if the rows are of a video file."""
    header = ET.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    media = (result.metadata.get("input") or {}).get("path") or ""
    kind = mimetypes.guess_type(media)[0] or ""
    if kind.startswith("video/") and "://" not in media:
        links = {"MEDIA_URL": f"file:///{Path(media).as_posix().removeprefix('/')}"}
        with suppress(ValueError):  # Windows: no relative path leads from one drive to another
            links["RELATIVE_MEDIA_URL"] = (
                f"./{Path(os.path.relpath(media, path.absolute().parent)).as_posix()}"
            )
        ET.SubElement(
            header,
            "MEDIA_DESCRIPTOR",
            {name: _xml(text) for name, text in links.items()},
            MIME_TYPE=kind,
        )
    ET.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(count)


def _add_tiers(
    document: ET.Element,
    result: AURows,
    aus: Sequence[str],
    found: pd.DataFrame,
    slots: Mapping[tuple[str, Any], str],
) -> None:
    """Add a tier for each face and action unit, also if it has no event."""
    model = _xml(" ".join(["pyfau", __version__, str(result.metadata.get("model", ""))]).strip())
    tiers: dict[tuple[int, str], list[tuple[int, float]]] = {}
    columns = (found["face_id"].tolist(), found["au"].tolist(), found["peak"].tolist())
    for number, (face_id, au, peak) in enumerate(zip(*columns, strict=True)):
        tiers.setdefault((face_id, au), []).append((number, peak))
    for face_id in result.face_ids:
        for au in aus:
            attributes = {
                "ANNOTATOR": model,
                "LINGUISTIC_TYPE_REF": _TYPE,
                "PARTICIPANT": f"face {face_id}",
            }
            tier = ET.SubElement(document, "TIER", attributes, TIER_ID=_xml(f"{au} face {face_id}"))
            for number, peak in tiers.get((face_id, au), ()):
                refs = {
                    "TIME_SLOT_REF1": slots["start", number],
                    "TIME_SLOT_REF2": slots["end", number],
                }
                annotation = ET.SubElement(tier, "ANNOTATION")
                aligned = ET.SubElement(
                    annotation, "ALIGNABLE_ANNOTATION", refs, ANNOTATION_ID=f"a{number + 1}"
                )
                ET.SubElement(aligned, "ANNOTATION_VALUE").text = f"{peak:.3f}"


def read_elan(path: StrPath, limits: Limits = LIMITS) -> pd.DataFrame:
    """Read the events of a file that `AUResult.to_elan` wrote.

    An annotator may have corrected the file. Only tiers with names such as "AU12 face 0" are read.

    Args:
        path: The file.
        limits: Larger files are refused.

    Returns:
        The columns face_id (int64), au (str), onset_s, offset_s and peak (float64; NaN if the
        annotation is not a number). The rows are in the order of the tiers, and by time within a
        tier.

    Raises:
        InputError: The file does not exist, or it is not a file of ELAN.
    """
    import pandas as pd

    rows: list[tuple[int, str, float, float, float]] = []
    try:
        document = _parse(read_file(path, limits.file_bytes))
        slots = _slots(document)
        seen: set[str] = set()
        for tier in document.iter("TIER"):
            name = tier.attrib["TIER_ID"]
            match = _TIER.fullmatch(name)
            if match is None:
                continue
            if name in seen:
                raise ValueError(f"there are two tiers {name!r:.80}")
            seen.add(name)
            face_id = _whole(match[2], "the number of a face")
            spans = sorted(_spans(tier, slots, name), key=lambda span: span[:2])
            rows += [(face_id, match[1], *span) for span in spans]
    # LookupError: an encoding that does not exist; KeyError is one too.
    except (OSError, ET.ParseError, LookupError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else reason_of(error)
        raise InputError(f"cannot read {path} as a file of ELAN: {reason}") from None
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    typed: pd.DataFrame = table.astype(_COLUMNS)
    return typed


class _Builder(ET.TreeBuilder):
    """Makes the elements of a document, within limits.

    A document type can define entities, with which a few bytes expand to gigabytes. Files of ELAN
    have none, so this parser refuses them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._count = 0

    def doctype(self, *_: object) -> None:
        """Called at the start of a document type."""
        raise ValueError("it has a document type, but files of ELAN have none")

    def start(self, tag: Any, attributes: Any, /) -> ET.Element:
        """Called at the start of an element."""
        self._depth += 1
        self._count += 1
        if self._depth > _MOST_DEPTH:
            raise ValueError("its elements are nested too deeply")
        if self._count > _MOST_ELEMENTS:
            raise ValueError(f"it has more than {_MOST_ELEMENTS} elements")
        return super().start(tag, attributes)

    def end(self, tag: Any, /) -> ET.Element:
        """Called at the end of an element."""
        self._depth -= 1
        return super().end(tag)


def _parse(data: bytes) -> ET.Element:
    """The root of a document."""
    parser = ET.XMLParser(target=_Builder())
    parser.feed(data)
    document: ET.Element = parser.close()
    if document.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f"expected ANNOTATION_DOCUMENT, got {document.tag:.80}")
    return document


def _slots(document: ET.Element) -> dict[str, float]:
    """The times in seconds by the name of their slot."""
    slots: dict[str, float] = {}
    for slot in document.iter("TIME_SLOT"):
        # In tiers that an annotator added, annotations can have slots without a time.
        if "TIME_VALUE" not in slot.attrib:
            continue
        name = slot.attrib["TIME_SLOT_ID"]
        if name in slots:
            raise ValueError(f"there are two time slots {name!r:.80}")
        slots[name] = _whole(slot.attrib["TIME_VALUE"], "TIME_VALUE") / 1000
    return slots


def _spans(
    tier: ET.Element, slots: Mapping[str, float], name: str
) -> Iterator[tuple[float, float, float]]:
    """The start, the end and the peak of each annotation of a tier."""
    for item in tier.iter("ALIGNABLE_ANNOTATION"):
        start, end = (slots[item.attrib[f"TIME_SLOT_REF{i}"]] for i in (1, 2))
        if start > end:
            raise ValueError(f"an annotation of {name} ends at {end:g} s, before {start:g} s")
        yield start, end, _peak(item.findtext("ANNOTATION_VALUE"), name)


def _peak(text: str | None, name: str) -> float:
    """The score in an annotation; NaN for other text."""
    try:
        peak = float(text or "nan")
    except ValueError:
        return math.nan
    if not (math.isnan(peak) or 0 <= peak <= 1):
        raise ValueError(f"an annotation of {name} has the score {peak:g}, expected 0 to 1")
    return peak


def _whole(text: str, what: str) -> int:
    """A whole number in ASCII digits that is not too large for a table."""
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"{what} must be a whole number from 0 up, got {text!r:.80}")
    return int(text)


def _xml(text: str) -> str:
    """The text without characters that XML does not allow; file names can contain them."""
    return _NOT_XML.sub("\ufffd", text)
