"""Files for other programs, written and read back; and files as those programs write them."""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pympi.Elan
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_result import AUS, META, empty_row, face_row

from pyfau import AUResult, read_result
from pyfau.analysis.events import find_events
from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.formats.elan import read_elan
from pyfau.formats.events import read_events
from pyfau.formats.openface import read_openface
from pyfau.formats.pyfeat import read_pyfeat
from pyfau.tables.metadata import is_complete
from pyfau.types import AURow

_names = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["NA", 'a,"b"\r\n', "\r"])
)


@st.composite
def results(draw: st.DrawFn, timed: bool | None = None) -> AUResult:
    """Up to twelve frames, each with up to three faces, with times or without, of images or of a
    video.
    """
    files, clock = draw(st.booleans()), draw(st.booleans()) if timed is None else timed
    source = draw(st.sampled_from(["/clips/é 🙂 <&>.mp4", "clip.mp4", "/a\x01b\udcff.mp4"]))
    result = AUResult(AUS, META | {"source": source, "input": {"path": source}}, files)
    for frame in range(draw(st.integers(0, 12))):
        ids = draw(st.sets(st.integers(0, 2), max_size=3))
        file = draw(_names) if files else None
        time_s = frame / 29.97 if clock else math.nan
        rows = (
            [empty_row(frame, file)]
            if not ids
            else [face_row(frame, i, frame * 3 + i, file) for i in sorted(ids)]
        )
        result.extend(
            AURow(**{name: getattr(row, name) for name in row.__slots__} | {"time_s": time_s})
            for row in rows
        )
    return result


def assert_close(left: pd.DataFrame, right: pd.DataFrame, within: float = 6e-7) -> None:
    pd.testing.assert_frame_equal(left, right, check_exact=False, rtol=0, atol=within)


@settings(max_examples=20, deadline=None)
@given(results())
def test_openface_and_back(result: AUResult) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = result.to_openface(Path(folder) / "clip.csv")
        header = path.read_text().splitlines()[0]
        back = read_openface(path)
    assert header == "frame,face_id,timestamp,confidence,success," + ",".join(
        f"{au}_c" for au in AUS
    )
    table = result.to_dataframe()
    assert_close(
        back,
        table[["frame", "time_s", "face_id", "success", "confidence", *(f"{au}_c" for au in AUS)]],
    )


def test_openface_counts_frames_from_1_and_has_zeros_without_a_face(tmp_path: Path) -> None:
    result = AUResult(AUS, META)
    result.extend([face_row(0, 2), empty_row(1)])
    table = pd.read_csv(result.to_openface(tmp_path / "new" / "clip.csv"))
    assert table["frame"].tolist() == [1, 2]
    assert table["face_id"].tolist() == [2, 0]
    assert table.iloc[1, 3:].tolist() == [0] * (2 + len(AUS))
    assert not [name for name in table.columns if name.endswith("_r")]


def test_a_file_of_openface_itself(tmp_path: Path) -> None:
    """With blanks in the header as 2.0 wrote them, one face or several, gaze, landmarks and
    intensities.
    """
    path = tmp_path / "clip.csv"
    path.write_text(
        "frame, face_id, timestamp, confidence, success, gaze_0_x, pose_Tx, x_0, Z_67, p_rx, "
        "AU01_r, AU45_r, AU01_c, "
        "AU28_c, AU45_c\n"
        "1, 0, 0.000, 0.98, 1, 0.109, 16.6, 277.2, 589.5, 0.30, 0.68, 1.20, 1.00, 0.00, 1.00\n"
        "1, 1, 0.000, 0.93, 1, 0.109, 16.6, 277.2, 589.5, 0.30, 0.00, 0.00, 0.00, 0.00, 0.00\n"
        "2, 0, 0.033, 0.03, 0, -nan(ind), 0, 0, 0, 0, 0.00, 0.00, 0.00, 0.00, 0.00\n"
    )
    table = read_openface(path)
    assert list(table.columns) == [
        "frame",
        "time_s",
        "face_id",
        "success",
        "confidence",
        "AU01_c",
        "AU28_c",
        "AU45_c",
        "AU01_r",
        "AU45_r",
    ]
    assert table["AU01_r"].tolist()[:2] == [0.68, 0.0]
    assert table["AU45_r"].isna().tolist() == [False, False, True]
    assert table["frame"].tolist() == [0, 0, 1]
    assert table["face_id"].tolist() == [0, 1, pd.NA]
    assert table["AU01_c"].tolist() == [1, 0, pd.NA]
    assert table["time_s"].tolist() == [0, 0, 0.033]
    # FeatureExtraction of the first versions had no face_id, and 2.2 has no blanks.
    path.write_text("frame,timestamp,confidence,success,AU12_c\n1,0.0,0.9,1,1\n2,0.04,0.1,0,0\n")
    assert read_openface(path)["face_id"].tolist() == [0, pd.NA]


@pytest.mark.parametrize("read", [read_openface, read_pyfeat, read_events, read_elan])
@pytest.mark.parametrize(
    "text", [None, "", "a,b\n1,2\n", "<x/>", "frame,timestamp,confidence,success\na,b,c,d\n"]
)
def test_what_is_not_of_the_kind(
    tmp_path: Path, read: Callable[[Path], pd.DataFrame], text: str | None
) -> None:
    path = tmp_path / "other.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"cannot read .*other\.csv"):
        read(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1.5,0,0,0.9,1,1", "frame must be a whole number from 1"),
        (",0,0,0.9,1,1", "frame must be a whole number from 1"),
        ("1,0,0,0.9,1,0.5", "AU12_c must be a whole number from 0 to 1"),
        ("1,0.5,0,0.9,1,1", "face_id must be a whole number from 0"),
        ("1,x,0,0.9,1,1", "x"),
    ],
)
def test_openface_with_numbers_that_it_cannot_have(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "clip.csv"
    path.write_text(f"frame,face_id,timestamp,confidence,success,AU12_c\n{row}\n")
    with pytest.raises(
        InputError, match=rf"cannot read .*clip\.csv as a table of OpenFace: .*{reason}"
    ):
        read_openface(path)


@settings(max_examples=20, deadline=None)
@given(results())
def test_pyfeat_and_back(result: AUResult) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = result.to_pyfeat()
        path = Path(folder) / "clip.csv"
        path.write_bytes(table.to_csv(index=False).encode(errors="backslashreplace"))
        back = read_pyfeat(path)
    names = [
        "frame",
        "time_s",
        "FaceRectX",
        "FaceRectY",
        "FaceRectWidth",
        "FaceRectHeight",
        "FaceScore",
        *AUS,
    ]
    assert list(table.columns) == [*names, "Identity", "input"]
    ours = result.to_dataframe()
    assert_close(
        back,
        ours[["frame", "time_s", "face_id", "success", "confidence", "x1", "y1", "x2", "y2", *AUS]],
        1e-9,
    )
    assert table["Identity"].isna().tolist() == ours["face_id"].isna().tolist()
    if len(table) and "file" not in ours:
        assert set(table["input"]) == {result.metadata["source"].replace("\udcff", r"\udcff")}


def test_a_file_of_pyfeat_itself(tmp_path: Path) -> None:
    path = tmp_path / "fex.csv"
    path.write_text(
        "FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,x_0,mesh_x_477,Pitch,X,"
        "AU01,AU12,AU43,Happy,Identity,Identity_512,input,frame,approx_time\n"
        "10.5,20,100,120,0.99,1,1,0.1,3,0.25,0.75,0.5,0.9,Person_1,0.3,C:\\clip.mp4,0,00:00\n"
        "nan,nan,nan,nan,nan,,,,,,,,,,,C:\\clip.mp4,1,00:00\n"
    )
    table = read_pyfeat(path)
    assert table["face_id"].tolist() == [1, pd.NA]
    assert table["success"].tolist() == [1, 0]
    assert table.loc[0, ["x1", "y1", "x2", "y2", "AU12"]].tolist() == [10.5, 20, 110.5, 140, 0.75]
    assert table["confidence"].tolist() == [0.99, 0]
    assert table["time_s"].isna().all()
    assert list(table.columns[-3:]) == ["AU01", "AU12", "AU43"]


@settings(max_examples=20, deadline=None)
@given(results(), st.integers(1, 3), st.integers(0, 2))
def test_events_and_back(result: AUResult, least: int, join: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = result.to_events(Path(folder) / "e.csv", min_frames=least, join_frames=join)
        assert_close(read_events(path), find_events(result, min_frames=least, join_frames=join))


def check_eaf(path: Path) -> ET.Element:
    """What the schema EAFv3.0.xsd asks of a document, as far as it concerns the elements that pyfau
    writes.
    """
    root = ET.parse(path).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert {"AUTHOR", "DATE", "FORMAT", "VERSION"} <= root.attrib.keys()
    assert root.attrib["FORMAT"] == "3.0"
    assert pd.Timestamp(root.attrib["DATE"]).tzinfo is not None  # xsd:dateTime
    kinds = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE"]
    order = [kinds.index(child.tag) for child in root]
    assert order == sorted(order)
    assert [order.count(i) for i in (0, 1, 3)] == [1, 1, 1]
    header = root.find("HEADER")
    assert header is not None
    assert [child.tag for child in header] in (["MEDIA_DESCRIPTOR", "PROPERTY"], ["PROPERTY"])
    for media in header.findall("MEDIA_DESCRIPTOR"):
        assert {"MEDIA_URL", "MIME_TYPE"} <= media.attrib.keys()
    slots = {
        slot.attrib["TIME_SLOT_ID"]: int(slot.attrib["TIME_VALUE"])
        for slot in root.iter("TIME_SLOT")
    }
    assert list(slots.values()) == sorted(slots.values())
    assert min(slots.values(), default=0) >= 0
    types = [kind.attrib["LINGUISTIC_TYPE_ID"] for kind in root.iter("LINGUISTIC_TYPE")]
    tiers = [tier.attrib["TIER_ID"] for tier in root.iter("TIER")]
    assert len(tiers) == len(set(tiers))
    assert {tier.attrib["LINGUISTIC_TYPE_REF"] for tier in root.iter("TIER")} <= set(types)
    used, ids = [], []
    for tier in root.iter("TIER"):
        last = -1
        for annotation in tier:
            assert annotation.tag == "ANNOTATION"
            (aligned,) = annotation
            assert aligned.tag == "ALIGNABLE_ANNOTATION"
            assert [child.tag for child in aligned] == ["ANNOTATION_VALUE"]
            ids.append(aligned.attrib["ANNOTATION_ID"])
            start, end = (aligned.attrib[f"TIME_SLOT_REF{i}"] for i in (1, 2))
            assert last <= slots[start] < slots[end]  # those of a tier do not overlap
            last = slots[end]
            used += [start, end]
    assert sorted(used) == sorted(slots)  # each is used once
    names = ids + list(slots)
    assert len(names) == len(set(names))  # xsd:ID
    assert header.findtext("PROPERTY") == str(len(ids))
    return root


@settings(max_examples=20, deadline=None)
@given(results(timed=True))
def test_elan_and_back(result: AUResult) -> None:
    found = find_events(result)
    with tempfile.TemporaryDirectory() as folder:
        path = result.to_elan(Path(folder) / "clip é.eaf")
        root = check_eaf(path)
        back = read_elan(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = pympi.Elan.Eaf(str(path))
    faces = result.face_ids
    assert [tier.attrib["TIER_ID"] for tier in root.iter("TIER")] == [
        f"{au} face {i}" for i in faces for au in AUS
    ]
    assert_close(back, found[["face_id", "au", "onset_s", "offset_s", "peak"]], 6e-4)
    for tier in theirs.get_tier_names():  # another reader finds the same
        au, face = tier.split(" face ")
        own = back[(back["au"] == au) & (back["face_id"] == int(face))]
        spans = [
            (round(a * 1000), round(b * 1000), f"{p:.3f}")
            for a, b, p in own.iloc[:, 2:].to_numpy().tolist()
        ]
        assert sorted(theirs.get_annotation_data_for_tier(tier)) == spans


def test_elan_after_an_annotator(tmp_path: Path) -> None:
    result = AUResult(AUS, META | {"input": {"path": str(tmp_path / "clip.mp4")}})
    result.extend(face_row(i) for i in range(9))
    path = result.to_elan(tmp_path / "out" / "clip.eaf")
    media = check_eaf(path).find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None
    assert media.attrib["RELATIVE_MEDIA_URL"] == "./../clip.mp4"
    assert media.attrib["MIME_TYPE"] == "video/mp4"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eaf = pympi.Elan.Eaf(str(path))
    eaf.add_tier("notes")
    eaf.add_annotation("notes", 0, 5, "blinks")
    eaf.add_annotation("AU12 face 0", 1000, 1200, "surely")
    eaf.to_file(str(path))
    # As ELAN writes an annotation that its neighbours hold in place, in a tier that is subdivided.
    path.write_text(
        path.read_text().replace("</TIME_ORDER>", '<TIME_SLOT TIME_SLOT_ID="ts999" /></TIME_ORDER>')
    )
    table = read_elan(path)
    (added,) = (row for row in table.itertuples(index=False, name=None) if row[2] == 1.0)
    assert added[:4] == (0, "AU12", 1.0, 1.2)
    assert math.isnan(added[4])
    assert len(table) == len(find_events(result)) + 1


def test_elan_needs_times(tmp_path: Path) -> None:
    result = AUResult(AUS, {})
    row = face_row(0)
    result.append(
        AURow(**{name: getattr(row, name) for name in row.__slots__} | {"time_s": math.nan})
    )
    assert row.active.any()
    with pytest.raises(InputError, match=r"clip\.eaf: ELAN needs times"):
        result.to_elan(tmp_path / "clip.eaf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["to_openface", "to_events", "to_elan"])
def test_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    result = AUResult(AUS, META)
    for path in (tmp_path, Path("/dev/null/x.csv")):
        with pytest.raises(OptionError, match="cannot write"):
            getattr(result, name)(path)


def test_metadata_of_a_table_that_is_replaced_goes_too(tmp_path: Path) -> None:
    result = AUResult(AUS, META)
    table = result.to_csv(tmp_path / "clip.csv")
    other = tmp_path / "other.csv"
    for path in (other, tmp_path / "other.csv.json"):  # not ours
        path.write_text("{}")
    for path in (table, other):
        result.to_openface(path)
    assert not is_complete(table)
    assert {path.name for path in tmp_path.iterdir()} == {"clip.csv", "other.csv", "other.csv.json"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    result = AUResult(AUS, META | {"thresholds": dict.fromkeys(AUS, 0.5)})
    result.extend([empty_row(0), *(face_row(i) for i in range(1, 60))])
    return result.to_csv(tmp_path / "clip.csv")


def test_the_command(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> int:
        return main(["table", str(table), "-o", *map(str, arguments)])

    out, result = tmp_path / "new", read_result(table)
    assert run(out / "a.jsonl") == run(out / "a.parquet") == run(out / "a.eaf") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{table}: 60 rows, jsonl, {out / 'a.jsonl'}"
    assert read_result(out / "a.jsonl").to_dataframe().equals(result.to_dataframe())
    assert read_result(out / "a.parquet").to_dataframe().equals(result.to_dataframe())
    assert len(read_elan(out / "a.eaf")) == len(find_events(result))
    assert (
        run(out / "of.csv", "--format", "openface")
        == run(out / "pf.csv", "--format", "pyfeat")
        == 0
    )
    assert len(read_openface(out / "of.csv")) == len(read_pyfeat(out / "pf.csv")) == 60
    assert run(out / "ev.csv", "--format", "events", "--min-frames", 2, "--join-frames", 1) == 0
    assert_close(read_events(out / "ev.csv"), find_events(result, min_frames=2, join_frames=1))
    assert run(out / "based.csv", "--baseline", 0.5) == 0
    based = read_result(out / "based.csv")
    assert based.metadata["baseline"]["quantile"] == 0.5
    np.testing.assert_array_equal(based.raw_scores, result.scores)
    assert np.nanmax(result.scores - based.scores) > 0.1
    assert capsys.readouterr().err == ""


def test_openface_files_are_labels_for_evaluate(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    result = read_result(table)
    labels, scores = (
        result.to_openface(table.with_name("labels.csv")),
        result.to_jsonl(table.with_name("scores.jsonl")),
    )
    options = [
        "--data",
        "csv",
        "--labels",
        str(labels),
        "--scores",
        str(scores),
        "--first-frame",
        "1",
    ]
    assert main(["evaluate", *options]) == 0
    assert re.search(r"mean +100\.0", capsys.readouterr().out)
    # Frames that OpenFace missed are zeros, which are no labels.
    lost = pd.read_csv(labels)
    lost.loc[30:, ["success", *(f"{au}_c" for au in AUS)]] = 0
    lost.to_csv(labels, index=False)
    assert main(["evaluate", *options]) == 0
    assert re.search(r"mean +100\.0", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["-o", "o.txt"],
            r"--output o\.txt: expected \.csv, \.parquet, \.jsonl, \.eaf, \.tsv, or --format",
        ),
        (
            ["-o", "o.csv", "--format", "elan"],
            r"--format elan is written to a \.eaf file, got --output o\.csv",
        ),
        (["-o", "clip.csv", "--format", "openface"], r"clip\.csv would replace the input"),
        (
            ["-o", "o.jsonl", "--min-frames", "2"],
            "--min-frames, --join-frames and --blinks are for --format events, elan and bids",
        ),
        (["-o", "o.eaf", "--min-frames", "0"], "min_frames must be"),
        (["-o", "o.csv", "--baseline", "2"], r"quantile must be a number in \[0, 1\], got 2"),
    ],
)
def test_what_the_command_refuses(
    table: Path,
    options: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(table.parent)
    before = table.read_bytes()
    assert main(["table", "clip.csv", *options]) == 1
    assert re.search(complaint, capsys.readouterr().err)
    assert table.read_bytes() == before
    assert {path.name for path in table.parent.iterdir()} == {"clip.csv", "clip.csv.json"}
