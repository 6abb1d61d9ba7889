"""Files of other programs with values that they cannot have: one InputError that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyfau.errors import InputError
from pyfau.formats.elan import read_elan
from pyfau.formats.events import read_events
from pyfau.formats.openface import read_openface
from pyfau.formats.pyfeat import read_pyfeat

OPENFACE = "frame, face_id, timestamp, confidence, success, AU12_r, AU12_c"
PYFEAT = "frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU12,Identity,input"
EVENTS = (
    "face_id,au,onset_frame,offset_frame,onset_s,offset_s,peak,peak_frame,onset_seen,offset_seen"
)
GOOD = {
    "openface": (OPENFACE, "1,0,0.0,0.9,1,2.5,1"),
    "pyfeat": (PYFEAT, "0,1,2,3,4,0.9,0.5,Person_0,a.mp4"),
    "events": (EVENTS, "0,AU12,1,5,0.1,0.5,0.9,3,True,False"),
}
READ: dict[str, Callable[[Path], Any]] = {
    "openface": read_openface,
    "pyfeat": read_pyfeat,
    "events": read_events,
}


def refuse(kind: str, text: str, tmp_path: Path) -> str:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        READ[kind](path)
    assert str(raised.value).startswith(f"cannot read {path} as a ")
    assert len(str(raised.value)) < 500
    return str(raised.value)


@pytest.mark.parametrize("kind", GOOD)
def test_what_the_cases_change_is_good(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(GOOD[kind]) + "\n")
    assert len(READ[kind](path)) == 1


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head, row: (head, row.rpartition(",")[0]), "fields, expected"),
        (lambda head, row: (head, f"{row},1"), "fields, expected"),
        (lambda head, row: (f"{head},{head.split(',')[0]}", f"{row},1"), "there are two columns"),
        (lambda head, row: (f"{head},a\x1b[2J", f"{row},1"), "is not a name of a column"),
        (lambda head, row: (f"{head},=1+1", f"{row},1"), "is not a name of a column"),
        (lambda head, row: (head, row.replace("1", "1\0", 1)), ""),
        (lambda head, row: (head.partition(",")[2], row.partition(",")[2]), ""),
    ],
    ids=["short", "long", "doubled", "control", "formula", "nul", "missing"],
)
def test_damaged_tables(
    kind: str, change: Callable[[str, str], tuple[str, str]], message: str, tmp_path: Path
) -> None:
    assert message in refuse(kind, "\n".join(change(*GOOD[kind])) + "\n", tmp_path)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        *[
            ("openface", name, value)
            for name, values in {
                "frame": ("", "nan", "0", "-1", "1.5", "1e300", "inf", "9" * 400, "x", "1,5"),
                "face_id": ("0.5", "-1", "inf", "1e300"),
                "timestamp": ("inf", "1e300", "x"),
                "confidence": ("2", "-0.1", "inf"),
                "success": ("", "2", "0.5", "nan"),
                "AU12_r": ("5.1", "-0.5", "inf", "high"),
                "AU12_c": ("2", "0.5", "inf"),
            }.items()
            for value in values
        ],
        *[
            ("pyfeat", name, value)
            for name, values in {
                "frame": ("", "nan", "-1", "1.5", "1e300", "inf"),
                "FaceRectX": ("1e300", "inf", "x"),
                "FaceRectWidth": ("1e300", "-inf"),
                "FaceScore": ("2", "-0.1", "inf"),
                "AU12": ("1.5", "-1", "inf", "x"),
                "Identity": ("Person_" + "9" * 30,),
            }.items()
            for value in values
        ],
        *[
            ("events", name, value)
            for name, values in {
                "face_id": ("", "-1", "0.5", "1e300", "9" * 30, "nan"),
                "au": ("", "\x1b[2J", "=1+1"),
                "onset_frame": ("-1", "6", "9" * 19, "x", ""),
                "offset_frame": ("0", "1e300"),
                "onset_s": ("0.6", "inf", "1e300"),
                "peak": ("2", "-1", "inf"),
                "peak_frame": ("-1", "9" * 30, ""),
                "onset_seen": ("", "x", "2"),
            }.items()
            for value in values
        ],
    ],
)
def test_values_that_a_column_cannot_have(
    kind: str, column: str, value: str, tmp_path: Path
) -> None:
    head, row = GOOD[kind]
    names = [name.strip() for name in head.split(",")]
    fields = row.split(",")
    fields[names.index(column)] = value
    refuse(kind, f"{head}\n{','.join(fields)}\n", tmp_path)


# ---- ELAN

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="100"/>
    <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="900"/>
  </TIME_ORDER>
  <TIER TIER_ID="AU12 face 0">
    <ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>0.9</ANNOTATION_VALUE>
    </ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
</ANNOTATION_DOCUMENT>
"""
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
BOMB = f'<!DOCTYPE a [<!ENTITY l0 "{"x" * 100}">{LAUGHS}]>'
QUADRATIC = f'<!DOCTYPE a [<!ENTITY l0 "{"x" * 60_000}">]>'


def test_a_good_file_of_elan(tmp_path: Path) -> None:
    (tmp_path / "a.eaf").write_text(EAF)
    read = read_elan(tmp_path / "a.eaf")
    assert read.values.tolist() == [[0, "AU12", 0.1, 0.9, 0.9]]
    # An annotator can write words.
    (tmp_path / "a.eaf").write_text(EAF.replace("0.9<", "smile?<"))
    assert read_elan(tmp_path / "a.eaf")["peak"].isna().all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<ANNOTATION_DOCUMENT>", f"{BOMB}<ANNOTATION_DOCUMENT>&l9;", "document type"),
        (
            "<ANNOTATION_DOCUMENT>",
            f"{QUADRATIC}<ANNOTATION_DOCUMENT>{'&l0;' * 20_000}",
            "document type",
        ),
        (
            "<ANNOTATION_DOCUMENT>",
            '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><ANNOTATION_DOCUMENT>&f;',
            "document type",
        ),
        ("<ANNOTATION_DOCUMENT>", "<ANNOTATION_DOCUMENT>&unknown;", "undefined entity"),
        ("  <TIME_ORDER>", "<a>" * 100_000 + "</a>" * 100_000 + "<TIME_ORDER>", "too deeply"),
        ("  <TIME_ORDER>", "<a/>" * 2_000_000 + "<TIME_ORDER>", "more than 2000000 elements"),
        ("UTF-8", "UTF-9", "unknown encoding: UTF-9"),
        ('"100"', '"-5"', "TIME_VALUE must be a whole number"),
        ('"100"', '"1e3"', "TIME_VALUE must be a whole number"),
        ('"100"', '"nan"', "TIME_VALUE must be a whole number"),
        ('"100"', '"1_0"', "TIME_VALUE must be a whole number"),
        ('"100"', '"\u0663"', "TIME_VALUE must be a whole number"),
        ('"100"', f'"{"9" * 5000}"', "TIME_VALUE must be a whole number"),
        ('"100"', '"901"', "ends at 0.9 s, before 0.901 s"),
        ("ts2", "ts1", "there are two time slots 'ts1'"),
        ("0.9<", "1.5<", "has the score 1.5"),
        ("0.9<", "-1<", "has the score -1"),
        ("0.9<", "inf<", "has the score inf"),
        ("face 0", f"face {'9' * 30}", "the number of a face must be"),
        ("face 0", "face \u0663", "the number of a face must be"),
        (' TIME_SLOT_REF2="ts2"', "", "is missing"),
        ("</ANNOTATION_DOCUMENT>", '<TIER TIER_ID="AU12 face 0"/></ANNOTATION_DOCUMENT>', "two"),
        ("ANNOTATION_DOCUMENT>", "OTHER>", "expected ANNOTATION_DOCUMENT"),
        ("0.9<", "\x1b<", "not well-formed"),
        ("0.9<", "\0<", "not well-formed"),
    ],
    ids=lambda text: text[:24] if isinstance(text, str) else None,
)
def test_hostile_files_of_elan(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in EAF
    path = tmp_path / "a.eaf"
    path.write_text(EAF.replace(old, new))
    with pytest.raises(InputError, match=message) as raised:
        read_elan(path)
    assert str(raised.value).startswith(f"cannot read {path} as a file of ELAN: ")
    assert len(str(raised.value)) < 500
