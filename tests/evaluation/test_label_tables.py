"""`pyfau evaluate --data csv`: anyone's labels against pyfau's tables."""

from __future__ import annotations

import json
import math
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau.cli import main
from pyfau.errors import InputError, OptionError
from pyfau.evaluation import TableOptions, evaluate_tables, render
from pyfau.evaluation.labels import match, pairs_of, read_labels
from pyfau.evaluation.metrics import icc_3_1
from pyfau.result import AUResult
from pyfau.types import AURow

pytest.importorskip("sklearn", reason="figures need scikit-learn")

AUS = ("AU01", "AU12", "AU25")
NAN4, NAN52 = np.full(4, np.nan, np.float32), np.full((5, 2), np.nan, np.float32)


def scored(
    faces: list[list[int]], fps: float | None = 10, files: list[str] | None = None
) -> AUResult:
    """A result with the faces of each frame.

    The score of AU12 is frame / 10, that of AU1 0.9, that of AU25 0.1 x face id.
    """
    result = AUResult(AUS, {"model": "some", "model_sha256": "0" * 64}, files is not None)
    for frame, ids in enumerate(faces):
        for face in ids or [None]:
            found = face is not None
            scores = (
                np.array([0.9, frame / 10, 0.1 * face], np.float32)
                if found
                else np.full(3, np.nan, np.float32)
            )
            time_s = frame / fps if fps else math.nan
            file = files[frame] if files else None
            row = AURow(
                frame,
                time_s,
                face,
                found,
                1.0 * found,
                NAN4,
                NAN52,
                scores,
                scores >= 0.3,
                AUS,
                file,
            )
            result.append(row)
    return result


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def matched(folder: Path, text: str, result: AUResult, **options: float):
    return match(read_labels(table(folder, text)), result, "scores.csv", **options)


def test_frames_without_face_ids(tmp_path: Path) -> None:
    found = matched(tmp_path, "frame,AU12,AU1\n0,0,1\n2,1,\n3,-1,0\n", scored([[0], [0], [0], [0]]))
    assert found.aus == ("AU01", "AU12")
    assert found.labels.tolist() == [[1, 0], [-1, 1], [0, -1]]
    assert found.scores[:, 1].tolist() == pytest.approx([0.0, 0.2, 0.3])
    assert found.active[:, 1].tolist() == [False, False, True], "pyfau's own answer"
    assert (found.label_rows, found.unmatched, found.unlabelled) == (3, {}, 1)
    assert found.notes == ["without labels: AU25"]


@pytest.mark.parametrize("name", ["AU12", "au12", "AU_12", "12", "AU12_c", " AU12", "AU 12"])
def test_names_of_action_units(tmp_path: Path, name: str) -> None:
    assert matched(tmp_path, f"frame,{name}\n0,1\n", scored([[0]])).aus == ("AU12",)


def test_openface_columns(tmp_path: Path) -> None:
    """Occurrence is used before a bare name; intensities and other columns are only named."""
    text = (
        "frame, face_id, timestamp, AU12_r, AU12_c, AU45_c, gaze_0_x\n0, 0, 0.0, 2.31, 1, 0, 0.2\n"
    )
    found = matched(tmp_path, text, scored([[0]]))
    assert (found.aus, found.labels.tolist()) == (("AU12",), [[1]])
    assert "columns of the labels that were not used: timestamp, AU12_r, gaze_0_x" in found.notes
    assert "not scored by the model: AU45" in found.notes
    both = read_labels(table(tmp_path, "frame,AU12,AU12_c\n0,0.37,1\n"))
    assert (both.labels.tolist(), both.unused) == ([[1]], ["AU12"])
    with pytest.raises(InputError, match="two columns for AU12: AU12 and 12"):
        read_labels(table(tmp_path, "frame,AU12,12\n0,1,1\n"))
    with pytest.raises(InputError, match="two columns for AU12: AU12 and au12"):
        read_labels(table(tmp_path, "frame,AU12,au12\n0,1,1\n"))
    with pytest.raises(InputError, match="two columns of one name: frame, AU12, AU12"):
        read_labels(table(tmp_path, "frame,AU12,AU12 \n0,1,1\n"))


def test_a_table_of_pyfau_is_a_table_of_labels(tmp_path: Path) -> None:
    result = scored([[0, 1], [], [1]])
    result.to_csv(tmp_path / "labels.csv")
    found = match(read_labels(tmp_path / "labels.csv"), result, "itself")
    assert np.array_equal(found.labels == 1, found.active)
    assert found.unmatched == {"no face was found in the frame": 1}


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("1", 1),
        ("0", 0),
        ("1.0", 1),
        ("", -1),
        ("-1", -1),
        ("NA", -1),
        ("nan", -1),
        ("9", -1),
        ("True", 1),
        (" 0 ", 0),
    ],
)
def test_ways_to_write_a_label(tmp_path: Path, cell: str, label: int) -> None:
    assert (
        read_labels(table(tmp_path, f"frame,AU1,AU12\n0,0,0\n1,1,{cell}\n")).labels[1, 1] == label
    )


@pytest.mark.parametrize("cell", ["2", "0.5", "yes", "-2", "inf"])
def test_what_is_no_label(tmp_path: Path, cell: str) -> None:
    with pytest.raises(
        InputError, match=r"labels.csv:3: AU12 is .*expected 0, 1, or empty.*--present"
    ):
        read_labels(table(tmp_path, f"frame,AU12\n0,0\n1,{cell}\n"))


def test_intensities(tmp_path: Path) -> None:
    path = table(tmp_path, "frame,AU12\n0,0\n1,1\n2,2\n3,5\n4,-1\n5,1.5\n")
    assert read_labels(path, present=2).labels[:, 0].tolist() == [0, 0, 1, 1, -1, 0]
    with pytest.raises(InputError, match=r"labels.csv:2: AU12 is '-3'; expected a number from 0"):
        read_labels(table(tmp_path, "frame,AU12\n0,-3\n"), present=2)


def test_columns_of_intensities(tmp_path: Path) -> None:
    text = "frame,AU12_r,AU12_c,AU25,AU25_c\n0,2.5,1,3,1\n1,0.5,0,,\n2,9,-1,0,0\n"
    path = table(tmp_path, text)
    graded = read_labels(path, present=2)
    assert graded.aus == ("AU12", "AU25")
    assert graded.labels.tolist() == [[1, 0], [0, -1], [-1, 0]]
    np.testing.assert_array_equal(graded.grades, [[2.5, 1], [0.5, np.nan], [np.nan, 0]])
    assert sorted(graded.unused) == ["AU12_c", "AU25"]
    plain = read_labels(path)
    assert plain.grades is None
    assert plain.labels.tolist() == [[1, 1], [0, -1], [-1, 0]]
    assert sorted(plain.unused) == ["AU12_r", "AU25"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_line_ends_and_marks(tmp_path: Path, separator: str, encoding: str) -> None:
    text = "frame,face_id,AU12\r\n0,0,1\r\n1,0,0\r\n\r\n".replace(",", separator)
    labels = read_labels(table(tmp_path, text, encoding))
    assert (labels.keys, labels.faces, labels.labels[:, 0].tolist()) == ([0, 1], [0, 0], [1, 0])


def test_faces(tmp_path: Path) -> None:
    result = scored([[0, 1], [0], [0, 1]])
    found = matched(tmp_path, "frame,face_id,AU12\n0,1,1\n1,1,1\n2,0,0\n2,1,1\n", result)
    assert found.labels[:, 0].tolist() == [1, 0, 1]
    assert found.unmatched == {"no face with that id in the frame": 1}
    assert found.unlabelled == 2
    found = matched(tmp_path, "frame,AU12\n0,1\n1,1\n7,0\n", result)
    assert found.unmatched == {
        "several faces in the frame and no face_id in the labels": 1,
        "no such frame among the scores": 1,
    }
    assert len(found.labels) == 1
    found = matched(tmp_path, "frame,face_id,AU12\n0,1,1\n1,,1\n", result)
    assert len(found.labels) == 2, "without an id it is the only face's"


def test_times(tmp_path: Path) -> None:
    result = scored([[0]] * 5)  # every 0.1 s
    found = matched(tmp_path, "time_s,AU12\n0.04,1\n0.26,0\n0.31,1\n0.46,1\n", result)
    assert found.scores[:, 0].tolist() == pytest.approx([0.0, 0.3])
    assert found.labels[:, 0].tolist() == [1, 1], "0.31 is nearer to frame 3 than 0.26"
    assert found.unmatched == {
        "another label is nearer to the frame": 1,
        "no such time among the scores": 1,
    }
    with pytest.raises(InputError, match=r"names frames by time, and scores.csv has no times"):
        matched(tmp_path, "time_s,AU12\n0.04,1\n", scored([[0]] * 3, fps=None))
    with pytest.raises(OptionError, match="--first-frame is for labels that count frames"):
        matched(tmp_path, "time_s,AU12\n0.04,1\n", result, first_frame=1)


def test_files(tmp_path: Path) -> None:
    result = scored([[0], [1], [2]], fps=None, files=["a/x.png", "b/x.png", "b/y.png"])
    found = matched(tmp_path, "file,AU12\nC:\\elsewhere\\y.png,1\nb/x.png,0\nx.png,1\n", result)
    assert found.scores[:, 0].tolist() == pytest.approx([0.1, 0.2])
    assert found.unmatched == {"no such file among the scores": 1}, "x.png is two images"
    with pytest.raises(InputError, match="has no column file: it is of a video"):
        matched(tmp_path, "file,AU12\ny.png,1\n", scored([[0]]))


def test_first_frame(tmp_path: Path) -> None:
    result = scored([[0], [0], [0]])
    text = "frame,AU12\n1,0\n2,0\n3,1\n"
    assert any("give --first-frame 1" in note for note in matched(tmp_path, text, result).notes)
    found = matched(tmp_path, text, result, first_frame=1)
    assert found.scores[:, 0].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert not found.unmatched


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read .*No columns"),
        ("frame,AU12\n", "holds no rows"),
        ("AU12\n1\n", "no column that names the frame: expected frame, time_s or file, got AU12"),
        (
            "frame,smile\n0,1\n",
            "no column of an action unit: expected names such as AU12, got frame, smile",
        ),
        ("frame,AU12\n0,1\nx,1\n", r"labels.csv:3: frame 'x'; expected a whole number"),
        ("frame,AU12\n0.5,1\n", r"labels.csv:2: frame '0.5'; expected a whole number"),
        ("frame,AU12\n0,1\n,1\n", r"labels.csv:3: frame is empty"),
        ("time,AU12\nlate,1\n", r"labels.csv:2: time 'late'; expected a number of seconds"),
        ("frame,AU12\n0,1\n0,1,1,1\n", "cannot read .*line 3"),
        ("frame,AU12\n0,1,1\n", "its rows have more fields than its header"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(table(tmp_path, text))


ANYTHING = st.text(alphabet=st.sampled_from('frameAU12,;\t\n\r" 01-.nx\x00\u2028ß'), max_size=60)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=100),
        ANYTHING.map(str.encode),
        ANYTHING.map(lambda x: f"frame,AU12\n{x}".encode()),
    )
)
def test_any_bytes_as_labels(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes(data)
        with suppress(InputError):
            match(read_labels(path), scored([[0], [1]]), "scores.csv")


def test_nothing_matches(tmp_path: Path) -> None:
    result = scored([[0], [0]])
    with pytest.raises(
        InputError, match=r"labels AU04 and scores.csv scores AU01, AU12, AU25: none in common"
    ):
        matched(tmp_path, "frame,AU4\n0,1\n", result)
    expected = (
        r"no such frame.*: 2\). The labels' frames run from 100 to 101, the scores' from 0 to 1"
    )
    with pytest.raises(InputError, match=expected):
        matched(tmp_path, "frame,AU12\n100,1\n101,0\n", result)
    with pytest.raises(InputError, match="the labels' faces are 7, the scores' 0"):
        matched(tmp_path, "frame,face_id,AU12\n0,7,1\n", result)
    with pytest.raises(
        InputError, match=r"labels.csv:3: frame 0 is labelled a second time, after line 2"
    ):
        matched(tmp_path, "frame,AU12\n0,1\n0,0\n", result)
    with pytest.raises(InputError, match="No such file"):
        read_labels(tmp_path / "nowhere.csv")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xd8\xff\xe0\x00\x01")
    with pytest.raises(InputError, match="cannot read"):
        read_labels(tmp_path / "labels.csv")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored([[0]] * 6 + [[]]).to_csv(tmp_path / "clip.csv")
    # AU12: scores .0 .1 .2 .3 .4 .5, pyfau's answer from .3 on.
    labels = table(
        tmp_path,
        "frame,AU12,AU1,AU7\n0,0,,1\n1,1,,1\n2,0,,1\n3,1,,1\n4,1,,1\n5,0,,1\n6,1,,1\n9,1,,1\n",
    )
    options = [
        "evaluate",
        "--data",
        "csv",
        "--labels",
        str(labels),
        "--scores",
        str(tmp_path / "clip.csv"),
    ]
    assert main([*options, "--report", str(tmp_path / "out" / "report.json"), "--more"]) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    figures = found["folds"]["all"]["aus"]
    assert figures["AU12"]["f1"] == pytest.approx(4 / 6)  # two hits, one miss, one false alarm
    assert figures["AU12"]["accuracy"] == pytest.approx(4 / 6)
    assert figures["AU01"]["f1"] is None, "no label of AU1 is known"
    assert found["threshold"] == "model"
    assert found["inputs"][0]["unmatched"] == {
        "no face was found in the frame": 1,
        "no such frame among the scores": 1,
    }
    out = capsys.readouterr().out
    assert "6 of 8 rows of labels have a score" in out
    assert "1 without: no face was found in the frame" in out
    assert "not scored by the model: AU07" in out
    assert "paper" not in out
    assert main([*options, "--threshold", "0.45", "--report", str(tmp_path / "report.json")]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["folds"]["all"]["aus"]["AU12"]["f1"] == 0.0


def test_folders_go_together_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("labels", "scores"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "c"):
        scored([[0]] * 6).to_csv(tmp_path / "scores" / f"{name}.csv")
    (tmp_path / "labels" / "a.csv").write_text("frame,AU12\n3,1\n4,0\n")
    (tmp_path / "labels" / "b.csv").write_text("frame,AU12,AU25\n5,1,0\n")
    (tmp_path / "labels" / "d.csv").write_text("frame,AU12\n5,1\n")
    pairs, notes = pairs_of(tmp_path / "labels", tmp_path / "scores")
    assert [label.name for label, _ in pairs] == ["a.csv", "b.csv"]
    assert [note.rsplit("/", 1)[1] for note in notes] == [
        "d.csv: labels without scores",
        "c.csv: scores without labels",
    ]
    options = ["--labels", str(tmp_path / "labels"), "--scores", str(tmp_path / "scores")]
    assert (
        main(["evaluate", "--data", "csv", *options, "--report", str(tmp_path / "report.json")])
        == 0
    )
    figures = json.loads((tmp_path / "report.json").read_text())["folds"]["all"]
    assert figures["frames"] == 3
    assert figures["aus"]["AU12"] == {
        "frames": 3,
        "present": 2,
        "f1": pytest.approx(0.8),
        "accuracy": pytest.approx(2 / 3),
    }
    assert figures["aus"]["AU25"]["frames"] == 1
    assert "a.csv: 2 of 2 rows" in capsys.readouterr().out
    # A bad table does not stop the others.
    (tmp_path / "labels" / "c.csv").write_text("frame,AU12\n100,1\n")
    assert (
        main(["evaluate", "--data", "csv", *options, "--report", str(tmp_path / "report.json")])
        == 1
    )
    assert "no row of" in capsys.readouterr().err
    assert json.loads((tmp_path / "report.json").read_text())["folds"]["all"]["frames"] == 3
    for name in ("a", "b"):
        (tmp_path / "labels" / f"{name}.csv").unlink()
    assert main(["evaluate", "--data", "csv", *options]) == 1
    assert (
        main(["evaluate", "--data", "csv", *options[:3], str(tmp_path / "scores" / "a.csv")]) == 1
    )
    assert "expected two files or two folders" in capsys.readouterr().err


def test_labels_given_as_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = table(tmp_path, "frame,AU12\n0,1\n")
    assert (
        main(["evaluate", "--data", "csv", "--labels", str(labels), "--scores", str(labels)]) == 1
    )
    assert "was not written by pyfau" in capsys.readouterr().err


def test_evaluation_from_python(tmp_path: Path) -> None:
    scored([[0]] * 6).to_csv(tmp_path / "clip.csv")
    # AU12: scores .0 .1 .2 .3 .4 .5
    labels = table(tmp_path, "frame,AU12\n1,0\n2,0\n3,1\n4,1\n5,1\n6,1\n")
    options = TableOptions(threshold=0.35, first_frame=1)
    report = evaluate_tables(labels, str(tmp_path / "clip.csv"), options)
    figures = report["folds"]["all"]["aus"]["AU12"]
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert (report["data"], report["threshold"], report["failures"]) == ("csv", 0.35, {})
    assert "AU12" in render(report)
    assert json.loads(json.dumps(report)) == report
    for wrong in (1.5, -0.1, float("nan"), "half", True, None):
        with pytest.raises(OptionError, match="threshold must be a number"):
            evaluate_tables(labels, tmp_path / "clip.csv", TableOptions(threshold=wrong))


def test_every_table_that_fails_is_named_if_none_is_left(tmp_path: Path) -> None:
    for folder in ("labels", "scores"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        scored([[0]] * 6).to_csv(tmp_path / "scores" / f"{name}.csv")
        (tmp_path / "labels" / f"{name}.csv").write_text("frame,AU12\n100,1\n")
    with pytest.raises(InputError, match=r"no row of .*a\.csv.*no row of .*b\.csv"):
        evaluate_tables(tmp_path / "labels", tmp_path / "scores")


def with_intensity(frames: int) -> AUResult:
    """The intensity of AU12 is half the number of the frame; that of the others is 1."""
    plain = scored([[0]] * frames)
    intensities = np.ones((frames, 3), np.float32)
    intensities[:, 1] = np.arange(frames) / 2
    return plain.adjusted(plain.scores, plain.active, False, intensities)


def test_graded_labels_and_intensities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_intensity(6).to_csv(tmp_path / "clip.csv")
    # Intensities of AU12 are 0, 0.5, 1, 1.5, 2, 2.5; those of AU25 do not vary.
    grades = [0, 1, 1, 2, 3, 3]
    lines = [f"{frame},{grade},{frame % 2},\n" for frame, grade in enumerate(grades)]
    labels = table(tmp_path, "frame,AU12,AU25,AU1\n" + "".join(lines))
    options = ["--data", "csv", "--labels", str(labels), "--scores", str(tmp_path / "clip.csv")]
    options += ["--present", "2", "--report", str(tmp_path / "report.json")]
    assert main(["evaluate", *options]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["folds"]["all"]["aus"]["AU12"]["present"] == 3
    figures = found["intensity"]["aus"]
    ratings = np.array([grades, np.arange(6) / 2]).T
    assert figures["AU12"] == {
        "frames": 6,
        "pearson": pytest.approx(np.corrcoef(ratings.T)[0, 1]),
        "icc": pytest.approx(icc_3_1(ratings)),
        "mae": pytest.approx(np.mean([0, 0.5, 0, 0.5, 1, 0.5])),
    }
    assert figures["AU25"] == {"frames": 6, "pearson": None, "icc": None, "mae": 0.5}
    assert figures["AU01"] == {"frames": 0, "pearson": None, "icc": None, "mae": None}
    assert found["intensity"]["frames"] == 6
    assert found["intensity"]["mean"]["mae"] == pytest.approx((2.5 / 6 + 0.5) / 2)
    out = capsys.readouterr().out
    assert "intensity, FACS grades from 0 to 5:" in out
    assert re.search(r"AU12 +6 +0\.9\d +0\.9\d +0\.42\n", out)
    # Labels of occurrence have no intensity.
    occurrence = "frame,AU12\n" + "".join(f"{frame},{frame % 2}\n" for frame in range(6))
    table(tmp_path, occurrence)
    assert "intensity" not in evaluate_tables(labels, tmp_path / "clip.csv")


def test_intensity_that_cannot_be_measured(tmp_path: Path) -> None:
    for folder in ("labels", "scores"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        text = "frame,AU12\n0,0\n1,3\n2,5\n"
        (tmp_path / "labels" / f"{name}.csv").write_text(text)
    with_intensity(6).to_csv(tmp_path / "scores" / "a.csv")
    scored([[0]] * 6).to_csv(tmp_path / "scores" / "b.csv")
    options = TableOptions(present=2)
    report = evaluate_tables(tmp_path / "labels", tmp_path / "scores", options)
    assert "intensity" not in report
    assert any(note.startswith("intensity is not measured: 1 of 2") for note in report["notes"])
    (tmp_path / "labels" / "a.csv").write_text("frame,AU12\n0,0\n1,30\n2,50\n")
    one = tmp_path / "labels" / "a.csv"
    report = evaluate_tables(one, tmp_path / "scores" / "a.csv", options)
    assert "intensity" not in report
    assert any("labels go up to 50" in note for note in report["notes"])
    # No table has intensities: nobody expects them.
    one.write_text("frame,AU12\n0,0\n1,3\n2,5\n")
    report = evaluate_tables(one, tmp_path / "scores" / "b.csv", options)
    assert not any("intensity" in note for note in report["notes"])


def test_intensities_of_tables_with_different_action_units(tmp_path: Path) -> None:
    for folder in ("labels", "scores"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labels" / "a.csv").write_text("frame,AU12\n0,0\n1,1\n2,2\n")
    (tmp_path / "labels" / "b.csv").write_text("frame,AU25\n0,0\n1,3\n")
    for name in ("a", "b"):
        with_intensity(6).to_csv(tmp_path / "scores" / f"{name}.csv")
    report = evaluate_tables(tmp_path / "labels", tmp_path / "scores", TableOptions(present=2))
    figures = report["intensity"]["aus"]
    assert figures["AU12"]["mae"] == pytest.approx(0.5)
    assert figures["AU25"]["mae"] == pytest.approx(1.5)
    assert (figures["AU12"]["frames"], figures["AU25"]["frames"]) == (3, 2)
    assert report["intensity"]["frames"] == 5
