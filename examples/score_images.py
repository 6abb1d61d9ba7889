"""Score a folder of unrelated images and list the strongest smiles.

python examples/score_images.py images/
"""

from __future__ import annotations

import argparse

from pyfau import AUDetector


def main(folder: str) -> None:
    result = AUDetector().detect_images(folder, independent=True)
    table = result.to_dataframe()
    smiles = table[table.success == 1].sort_values("AU12", ascending=False)
    print(smiles[["file", "face_id", "AU12", "AU12_c"]].head(10).to_string(index=False))
    for failure in result.failures:
        print(f"could not read {failure.source}: {failure.error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with images")
    main(parser.parse_args().folder)
