"""Compare two conditions within people, from recordings named PERSON-CONDITION.mp4.

The person is the unit of analysis. The frames of one person are alike, and a test over frames
finds "significant" differences in anything.

python examples/compare_conditions.py recordings/ film rest
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from pyfau import AUDetector


def shares(folder: Path) -> pd.DataFrame:
    """Compute how often each AU is active, for each person and condition.

    Returns:
        One row per recording: person, condition, number of frames, share of frames with a face,
        and for each AU the share of the frames with a face in which it is active.
    """
    detector = AUDetector(max_faces=1)
    lines = []
    for path in sorted(folder.glob("*-*.mp4")):
        person, condition = path.stem.rsplit("-", 1)
        frames = detector.detect_video(path).to_dataframe()
        rows = frames[frames.success == 1]
        line = {
            "person": person,
            "condition": condition,
            "frames": len(frames),
            "face": frames.success.mean(),
        }
        lines.append(line | {au: rows[f"{au}_c"].mean() for au in detector.aus})
    return pd.DataFrame(lines)


def compare(table: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Compare two conditions over the people who have both.

    Returns:
        One row per AU: number of people, mean difference, Cohen's d, p, and p corrected by Holm.
    """
    aus = [name for name in table.columns if name.startswith("AU")]
    means = table.groupby(["person", "condition"])[aus].mean().unstack("condition")
    lines = []
    for au in aus:
        pair = means[au][[first, second]].dropna()
        difference = (pair[first] - pair[second]).to_numpy(float)
        spread = difference.std(ddof=1)
        # If the condition has no effect, each person's difference may have either sign.
        test = permutation_test(
            (difference,),
            np.mean,
            permutation_type="samples",
            n_resamples=9999,
            rng=np.random.default_rng(0),
        )
        effect = difference.mean() / spread if spread > 0 else np.nan
        lines.append((au, len(difference), difference.mean(), effect, test.pvalue))
    result = pd.DataFrame(lines, columns=["AU", "people", "difference", "cohens_d", "p"]).set_index(
        "AU"
    )
    order = result.p.sort_values()  # Holm: multiply the k-th smallest of n by n - k + 1
    result["p_holm"] = (order * np.arange(len(order), 0, -1)).cummax().clip(upper=1)
    return result


def main(folder: Path, first: str, second: str) -> None:
    table = shares(folder)
    if table.empty:
        raise SystemExit(f"no recordings named PERSON-CONDITION.mp4 in {folder}")
    for line in table[table.face == 0].itertuples():
        print(f"left out, no face was found: {line.person}-{line.condition}")
    wanted = table[table.condition.isin([first, second]) & (table.face > 0)]
    complete = wanted.groupby("person").condition.nunique() == 2
    if complete.sum() < 2:
        raise SystemExit(
            f"{complete.sum()} people have both {first} and {second}: at least 2 are needed"
        )
    print("share of frames with a face, by condition:")
    print(wanted.groupby("condition").face.mean().to_string(float_format="%.2f"))
    result = compare(wanted, first, second)
    print(f"\nshare of time active, {first} minus {second}, over {complete.sum()} people")
    print(result.to_string(float_format="%.3f"))
    print(f"\nThe least p that {complete.sum()} people can give is {2 / 2 ** complete.sum():.3g}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of recordings named PERSON-CONDITION.mp4")
    parser.add_argument("first", help="a condition")
    parser.add_argument("second", help="the other one")
    args = parser.parse_args()
    main(args.folder, args.first, args.second)
