"""Results inside Jupyter, and the notebook of the examples."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_blinks import FRAMES, eyes
from test_result import AUS, META

from pyfau import AUResult
from pyfau.demo import demo_frames, write_demo_clip
from pyfau.errors import DependencyError, InputError, OptionError
from pyfau.notebook import overlay_clip, overlay_frame
from pyfau.types import Failure

NOTEBOOK = Path(__file__).parents[1] / "examples" / "video_to_report.ipynb"
HOSTILE = "<script>alert(1)</script>"


def test_rows_plot_and_warnings() -> None:
    result = eyes(FRAMES)
    result.warnings.append(f"a warning {HOSTILE}")
    result.failures.append(Failure(HOSTILE, "\x1b[2J"))
    result.metadata["source"] = f"{HOSTILE}.mp4"
    page = result._repr_html_()
    assert page.count("<tr>") == 6
    assert f"{len(result) - 5} more rows" in page
    assert "data:image/png;base64," in page
    assert "a warning" in page
    assert "<script" not in page
    assert "\x1b" not in page


def test_names_of_columns_are_escaped() -> None:
    result = AUResult((HOSTILE,), {})
    page = result._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_empty_results_and_many_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = AUResult(AUS, META)
    empty.warnings += ["again"] * 12
    page = empty._repr_html_()
    assert "<img" not in page
    assert "<li>2 more</li>" in page
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "<img" not in eyes(FRAMES)._repr_html_()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("notebook") / "clip.mp4")


def boxed() -> AUResult:
    """A face with a box in each frame of the clip."""
    table = eyes(FRAMES[:75], fps=25.0).to_dataframe()
    table[["x1", "y1", "x2", "y2"]] = [200.0, 100.0, 400.0, 350.0]
    return AUResult.from_dataframe(table, {"fps": 25.0})


def test_a_frame_with_its_overlay(clip: Path) -> None:
    image = overlay_frame(boxed(), clip, 10, False)
    plain = demo_frames()[10]
    assert image.shape == plain.shape
    difference = np.abs(image.astype(int) - plain)
    assert difference[100:104, 210:390].mean() > 30  # the box
    with pytest.raises(InputError, match="no row of frame 80"):
        overlay_frame(boxed(), clip, 80, False)


def test_a_part_as_a_video(clip: Path, tmp_path: Path) -> None:
    import av

    path = tmp_path / "part.mp4"
    path.write_bytes(overlay_clip(boxed(), clip, 1.0, 0.8, True))
    with av.open(str(path)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 20
    with pytest.raises(InputError, match="no frame from 100 s on"):
        overlay_clip(boxed(), clip, 100.0, 1.0, False)


def test_show(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = boxed()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "IPython", None)
        with pytest.raises(DependencyError, match="needs Jupyter or IPython"):
            result.show(clip)
    pytest.importorskip("IPython")
    result.metadata["input"] = {"path": str(clip)}
    assert result.show(frame=3).format == "png"
    assert "video/mp4" in result.show(seconds=0.2)._repr_html_()
    with pytest.raises(OptionError, match="seconds must be above 0"):
        result.show(seconds=0)
    result.metadata["input"] = {"path": "gone.mp4"}
    with pytest.raises(InputError, match="give its path"):
        result.show(frame=3)


def test_the_notebook_is_stored_without_output() -> None:
    stored = json.loads(NOTEBOOK.read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in stored["cells"])
    assert not any(cell.get("execution_count") for cell in stored["cells"])


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing needs the network
    book = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    kinds = [
        set(output.get("data", {})) for cell in book.cells for output in cell.get("outputs", [])
    ]
    assert sum("text/html" in kind for kind in kinds) >= 3
    assert any("image/png" in kind for kind in kinds)
    assert (tmp_path / "notebook-report.html").stat().st_size > 4_000_000
