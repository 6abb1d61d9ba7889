"""The action units by their FACS names."""

from __future__ import annotations

AU_NAMES: dict[str, str] = {
    "AU01": "inner brow raiser",
    "AU02": "outer brow raiser",
    "AU04": "brow lowerer",
    "AU05": "upper lid raiser",
    "AU06": "cheek raiser",
    "AU07": "lid tightener",
    "AU09": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU11": "nasolabial deepener",
    "AU12": "lip corner puller",
    "AU13": "sharp lip puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU16": "lower lip depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU19": "tongue show",
    "AU20": "lip stretcher",
    "AU22": "lip funneler",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU27": "mouth stretch",
    "AU28": "lip suck",
    "AU32": "lip bite",
    "AU38": "nostril dilator",
    "AU39": "nostril compressor",
    "AU43": "eyes closed",
    "AU45": "blink",
}


# The letter that follows the number of an action unit on one side of the face.
SIDE_LETTERS = {"": "", "left": "L", "right": "R"}


def full_name(au: str) -> str:
    """Such as "AU12 lip corner puller" or "AU12L lip corner puller, left".

    The column's name alone if FACS has no name for it.
    """
    name = AU_NAMES.get(au[:4])
    if name is None:
        return au
    for side, letter in SIDE_LETTERS.items():
        if au[4:] == letter:
            return f"{au} {name}, {side}" if side else f"{au} {name}"
    return au


def au_name(number: int, side: str = "") -> str:
    """Column name of an action unit: 6 -> "AU06"; 6 and "left" -> "AU06L"."""
    return f"AU{number:02d}{SIDE_LETTERS[side]}"
