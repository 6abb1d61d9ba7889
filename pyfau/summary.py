"""Features of a clip: one row of numbers for models of affect, see docs/formats.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyfau.errors import OptionError
from pyfau.events import events, frame_interval, scored_rows
from pyfau.result import AUResult

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (10, 50, 90)


def summarize(result: AUResult, per: str = "face") -> pd.DataFrame:
    """See `AUResult.summary`."""
    import pandas as pd

    if per not in ("face", "clip"):
        raise OptionError(f'per must be "face" or "clip", got {per!r}')
    scored = scored_rows(result)
    frames = len(np.unique(result.frames))
    sequence = not result.metadata.get("independent")
    # Independent pictures have no events and no seconds, so that everything about time is NaN.
    found = events(result if sequence else AUResult(result.aus, {}))
    step = frame_interval(scored, result.metadata.get("fps")) if sequence else np.nan

    def features(rows: pd.DataFrame, runs: pd.DataFrame) -> dict[str, float]:
        seconds = len(rows) * step
        row: dict[str, float] = {
            "frames": len(rows),
            "seconds": seconds,
            "face_share": rows["frame"].nunique() / frames if frames else np.nan,
            "confidence_mean": rows["confidence"].mean(),
        }
        for au in result.aus:
            scores = rows[au].to_numpy()
            row[f"{au}_mean"] = np.mean(scores) if len(scores) else np.nan
            row[f"{au}_std"] = np.std(scores) if len(scores) else np.nan
            levels = np.percentile(scores, PERCENTILES) if len(scores) else [np.nan] * len(PERCENTILES)
            row |= {f"{au}_p{p}": level for p, level in zip(PERCENTILES, levels, strict=True)}
            row[f"{au}_active_share"] = rows[f"{au}_c"].astype(float).mean()
            own = runs[runs["au"] == au]
            row[f"{au}_onsets_per_min"] = own["onset_seen"].sum() / seconds * 60 if seconds else np.nan
            row[f"{au}_event_mean_s"] = (own["offset_s"] - own["onset_s"]).mean()
        return row

    if per == "clip":
        summary = pd.DataFrame([features(scored, found)])
    else:
        ids = sorted(scored["face_id"].unique().tolist())
        rows = [features(scored[scored["face_id"] == i], found[found["face_id"] == i]) for i in ids]
        index = pd.Index(ids, name="face_id", dtype="int64")
        summary = pd.DataFrame(rows, index, list(features(scored, found)))
    typed: pd.DataFrame = summary.astype(np.float64)
    return typed
