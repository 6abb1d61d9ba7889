"""py-feat and pyfau read each other's files. Runs where py-feat is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_blinks import FRAMES, eyes
from test_table_landmarks import located
from test_table_measures import measured

from pyfau.formats.pyfeat import read_pyfeat

feat = pytest.importorskip("feat", exc_type=ImportError, reason="needs py-feat")


def test_round_trip_through_a_fex(tmp_path: Path) -> None:
    from feat.utils.io import read_feat

    result = eyes(FRAMES)
    result.metadata["source"] = "clip.mp4"
    ours = tmp_path / "ours.csv"
    result.to_pyfeat().to_csv(ours, index=False)
    fex = read_feat(str(ours))
    assert list(fex.aus.columns) == ["AU12", "AU43"]
    np.testing.assert_allclose(fex.aus.to_numpy(), result.scores, atol=1e-6)
    assert set(fex.identities) == {"Person_0"}
    theirs = tmp_path / "theirs.csv"
    fex.to_csv(theirs, index=False)
    back = read_pyfeat(theirs)
    table = result.to_dataframe()
    for name in ("frame", "face_id", "success"):
        assert back[name].tolist() == table[name].tolist()
    for name in ("x1", "y1", "x2", "y2", "AU12", "AU43", "confidence"):
        np.testing.assert_allclose(back[name], table[name], atol=1e-3)


def test_a_fex_has_the_head_pose(tmp_path: Path) -> None:
    from feat.utils.io import read_feat

    path = tmp_path / "clip.csv"
    measured().to_pyfeat().to_csv(path, index=False)
    fex = read_feat(str(path))
    assert list(fex.poses.columns) == ["Pitch", "Roll", "Yaw", "X", "Y", "Z"]
    expected = np.radians([5.0, -3.0, 10.0])
    np.testing.assert_allclose(fex.poses.iloc[0, :3].to_numpy(float), expected, atol=1e-6)
    fex.to_csv(path, index=False)
    back = read_pyfeat(path)
    table = measured().to_dataframe()
    for name in ("pitch", "yaw", "roll"):
        np.testing.assert_allclose(back[name], table[name], atol=1e-4)


def test_a_fex_has_the_landmarks(tmp_path: Path) -> None:
    from feat.utils.io import read_feat

    path = tmp_path / "clip.csv"
    located().to_pyfeat().to_csv(path, index=False)
    points = read_feat(str(path)).landmarks
    assert points.shape == (len(located()), 136)
    ours = located().to_dataframe()
    for name in ("x_0", "x_67", "y_0", "y_67"):
        np.testing.assert_allclose(points[name], ours[name], atol=1e-3)
