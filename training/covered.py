"""Train the small network that estimates which share of a face is hidden.

    python training/covered.py ../shared/data/faces --out first --minutes 14
    python training/covered.py ../shared/data/faces --out pyfau/assets/covered --minutes 19 \\
        --start first/model.safetensors

Half of the faces get a cover: a mask, a bar or dark glasses over the eyes, fingers, a fist, a
microphone, a box or a blot, in one colour, with noise, or with the skin of this face or of others.
The target is the share of an oval around the face that is hidden. People are split by name: 80 % to
train on, 10 % for validation, 10 % for the test. Some photographs have real covers, which nobody
marked. So after half of the time, the 3 % of the faces that look most covered are left out. The
program prints figures for artificial covers.
"""

from __future__ import annotations

import argparse
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pyfau.faces.crop import crop_face
from pyfau.faces.measures import _TEMPLATE, _CoverNetwork

SIDE, STORED = 64, 80  # pixels of a view, and of the stored crops, which leave room for shifts
SMALL = 32
# The landmarks of MediaPipe that make the five points: two corners of each eye, nose, mouth.
EYES, NOSE, MOUTH = ((33, 133), (362, 263)), 1, (61, 291)


def read_crops(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Crops (F, 80, 80, 3) uint8 of all faces, and the person of each."""
    teacher = np.load(folder / "teacher.npz")
    landmarks, source = teacher["landmarks"].astype(float), teacher["source"]
    inner = STORED / SIDE
    template = (np.array(_TEMPLATE) - 0.5) / inner + 0.5
    rng = np.random.default_rng(0)
    crops, people = [], []
    with tarfile.open(folder / "faces.tar") as tar:
        members = sorted(name for name in tar.getnames() if name.endswith(".jpg"))
        for name in members:
            number = int(Path(name).stem)
            marks = landmarks[number]
            file = tar.extractfile(name)
            if file is None or not np.isfinite(marks).all():
                continue
            bgr = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
            five = [marks[list(pair)].mean(axis=0) for pair in EYES]
            five += [marks[NOSE], *marks[list(MOUTH)]]
            points = np.array(five)
            points += rng.normal(0, 0.02 * np.hypot(*(points[1] - points[0])), points.shape)
            rgb = np.ascontiguousarray(bgr[:, :, ::-1])
            crops.append(crop_face(rgb, points.astype(np.float32), template, STORED))
            people.append(str(source[number]).rsplit("_", 1)[0])
    return np.stack(crops), np.array(people)


def split(people: np.ndarray) -> np.ndarray:
    """For each face 0 (training), 1 (validation) or 2 (test), by person."""
    names = np.unique(people)
    np.random.default_rng(1).shuffle(names)
    tenth = len(names) // 10
    test, validation = set(names[:tenth]), set(names[tenth : 2 * tenth])
    return np.array([2 if p in test else 1 if p in validation else 0 for p in people])


def make_texture(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(64, 64, 3) float32: the appearance of a cover."""
    kind = rng.integers(5)
    if kind == 1:  # skin
        face = crops[rng.integers(len(crops))]
        patch = face[8:24, 24:56] if rng.random() < 0.5 else face[45:60, 12:26]
        return cv2.resize(patch, (SIDE, SIDE)).astype(np.float32)
    if kind == 2:  # any part of a face
        face = crops[rng.integers(len(crops))]
        y, x = rng.integers(0, 50, 2)
        patch = cv2.resize(face[y : y + 30, x : x + 30], (SIDE, SIDE))
        return np.rot90(patch, rng.integers(4)).astype(np.float32)
    colour = rng.integers(0, 256, 3)
    choice = rng.random()
    if choice < 0.3:
        colour = np.repeat(rng.integers(0, 256), 3)
    elif choice < 0.5:  # white
        colour = np.clip(np.array([235, 240, 245]) + rng.integers(-30, 10, 3), 0, 255)
    elif choice < 0.65:  # the blue of surgical masks
        colour = np.clip(np.array([120, 170, 210]) + rng.integers(-30, 30, 3), 0, 255)
    texture = np.empty((SIDE, SIDE, 3), np.float32)
    texture[:] = colour
    if kind == 0:
        return texture
    cells = int(rng.integers(2, 12))
    waves = rng.normal(0, rng.uniform(5, 40), (cells, cells)).astype(np.float32)
    texture += cv2.resize(waves, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]
    if kind == 3:
        return texture + np.linspace(-1, 1, SIDE)[:, None, None] * rng.normal(0, 30)
    return texture + rng.normal(0, rng.uniform(2, 20), (SIDE, SIDE, 1))


def _polygon(mask: np.ndarray, points: list[tuple[float, float]]) -> None:
    cv2.fillPoly(mask, [np.round(np.array(points)).astype(int)], 1)


def _face_mask(mask: np.ndarray, rng: np.random.Generator) -> None:
    y, w = rng.uniform(26, 46), rng.uniform(18, 34)
    left, middle, right = rng.uniform(-4, 6), rng.uniform(-2, 8), rng.uniform(-4, 6)
    top = [(32 - w, y + left), (32, y - middle), (32 + w, y + right)]
    _polygon(mask, [*top, (32 + 0.8 * w, 64), (32 - 0.8 * w, 64)])


def _edge(mask: np.ndarray, rng: np.random.Generator) -> None:
    """A straight edge: one side of the view is hidden."""
    mask[SIDE - int(rng.integers(8, 36)) :] = 1
    mask[:] = np.rot90(mask, rng.integers(4)).copy()
    turn = cv2.getRotationMatrix2D((32, 32), rng.normal(0, 12), 1.0)
    mask[:] = cv2.warpAffine(mask, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def _bar(mask: np.ndarray, rng: np.random.Generator) -> None:
    """A bar over the eyes."""
    y, h = rng.uniform(18, 26), rng.uniform(5, 10)
    tilts = rng.normal(0, 3, 2)
    _polygon(mask, [(0, y - h), (64, y - h + tilts[0]), (64, y + h), (0, y + h + tilts[1])])


def _fingers(mask: np.ndarray, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    start = 32 + rng.normal(0, 18, 2)
    count = int(rng.integers(2, 5))
    for i in range(count):
        root = start + across * (i - count / 2) * rng.uniform(7, 10)
        tip = root + along * rng.uniform(25, 60)
        ends = [tuple(np.round(end).astype(int).tolist()) for end in (root, tip)]
        cv2.line(mask, ends[0], ends[1], 1, int(rng.integers(6, 10)))
    palm = np.round(start + along * 40).astype(int).tolist()
    cv2.circle(mask, tuple(palm), int(rng.integers(12, 24)), 1, -1)


def _blot(mask: np.ndarray, rng: np.random.Generator) -> None:
    centre, axes = rng.integers(4, 60, 2).tolist(), rng.integers(8, 30, 2).tolist()
    cv2.ellipse(mask, tuple(centre), tuple(axes), float(rng.uniform(0, 180)), 0, 360, 1, -1)


def _box(mask: np.ndarray, rng: np.random.Generator) -> None:
    x, y = rng.integers(-10, 54, 2)
    w, h = rng.integers(14, 60, 2)
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 1


def _shape(mask: np.ndarray, rng: np.random.Generator) -> None:
    _polygon(mask, rng.uniform(-10, 74, (rng.integers(3, 7), 2)).tolist())


def _fist(mask: np.ndarray, rng: np.random.Generator) -> None:
    """A hand at the mouth, chin or cheek: fingers side by side, which come from below or a side."""
    side = rng.choice([-1, 1])
    centre = np.array([32 + side * rng.uniform(0, 20), rng.uniform(36, 58)])
    width = rng.uniform(5, 8)
    tilt = rng.normal(0, 0.5)
    across = np.array([np.cos(tilt), np.sin(tilt)])
    for i in range(int(rng.integers(3, 5))):
        at = np.round(centre + across * (i - 1.5) * width).astype(int).tolist()
        axes = (int(np.ceil(width * 0.6)), int(rng.uniform(7, 13)))
        cv2.ellipse(mask, tuple(at), axes, float(np.degrees(tilt)), 0, 360, 1, -1)
    arm = np.round(centre + np.array([side * rng.uniform(0, 25), 40])).astype(int).tolist()
    start = np.round(centre + np.array([0, 8])).astype(int).tolist()
    cv2.line(mask, tuple(start), tuple(arm), 1, int(rng.integers(10, 24)))


def _microphone(mask: np.ndarray, rng: np.random.Generator) -> None:
    centre = np.array([rng.uniform(18, 46), rng.uniform(42, 60)])
    radius = int(rng.integers(6, 13))
    end = np.round(centre + np.array([rng.normal(0, 20), 40])).astype(int).tolist()
    place = np.round(centre).astype(int).tolist()
    cv2.circle(mask, tuple(place), radius, 1, -1)
    cv2.line(mask, tuple(place), tuple(end), 1, int(rng.integers(4, 10)))


def _dark_glasses(mask: np.ndarray, rng: np.random.Generator) -> None:
    half, height = rng.uniform(7, 11.5), rng.uniform(5, 9)
    drop = rng.uniform(-1, 3)
    for x, y in np.array(_TEMPLATE)[:2] * SIDE:
        place = (round(x), round(y + drop))
        axes = (round(half), round(height))
        if rng.random() < 0.5:
            cv2.ellipse(mask, place, axes, 0, 0, 360, 1, -1)
        else:
            corner = (place[0] + axes[0], place[1] + axes[1])
            cv2.rectangle(mask, (place[0] - axes[0], place[1] - axes[1]), corner, 1, -1)
    level = round(_TEMPLATE[0][1] * SIDE + drop - height / 2)
    cv2.line(
        mask, (int(rng.integers(0, 10)), level), (SIDE - int(rng.integers(0, 10)), level), 1, 1
    )


COVERS = (
    _face_mask,
    _edge,
    _bar,
    _fingers,
    _fingers,
    _fist,
    _fist,
    _microphone,
    _dark_glasses,
    _dark_glasses,
    _blot,
    _box,
    _shape,
)
SKIN = (_fingers, _fist)
DARK = (_dark_glasses, _microphone)


def skin_of(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(64, 64, 3) float32: skin of the same face, in other light."""
    patch = view[6:16, 22:42] if rng.random() < 0.5 else view[36:48, 10:20]
    texture = cv2.resize(patch, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    slope = np.linspace(-1, 1, SIDE)[:, None] * rng.normal(0, 0.2)
    slope = slope + np.linspace(-1, 1, SIDE)[None, :] * rng.normal(0, 0.2)
    light = rng.uniform(0.7, 1.3) * (1 + slope[..., None])
    return (texture * light + rng.normal(0, rng.uniform(0, 6), (SIDE, SIDE, 1))).astype(np.float32)


def dark(rng: np.random.Generator) -> np.ndarray:
    """(64, 64, 3) float32: dark glass or foam, with a light from one side."""
    level = rng.uniform(0, 70)
    slope = np.linspace(-1, 1, SIDE)[:, None] * rng.normal(0, 20)
    slope = slope + np.linspace(-1, 1, SIDE)[None, :] * rng.normal(0, 20)
    texture = np.repeat((level + slope)[..., None], 3, axis=2)
    return (texture + rng.normal(0, rng.uniform(0, 12), (SIDE, SIDE, 1))).astype(np.float32)


def add_edges(texture: np.ndarray, shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker lines where the parts of a hand end."""
    inner = cv2.erode(shape, np.ones((3, 3), np.uint8))
    edge = cv2.GaussianBlur((shape - inner).astype(np.float32), (3, 3), 0.8)[..., None]
    return texture * (1 - edge * rng.uniform(0.1, 0.6))


def _oval() -> np.ndarray:
    oval = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(oval, (32, 33), (23, 31), 0, 0, 360, 1, -1)
    return oval


OVAL = _oval()


def cover(
    view: np.ndarray, crops: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The view with something in front of the face, and the hidden share of the oval."""
    shape = np.zeros((SIDE, SIDE), np.uint8)
    kind = COVERS[rng.integers(len(COVERS))]
    kind(shape, rng)
    mask = shape.astype(np.float32)
    share = float((mask * OVAL).sum() / OVAL.sum())
    if rng.random() < 0.7:
        mask = cv2.GaussianBlur(mask, (3, 3), rng.uniform(0.3, 1.2))
    choice = rng.random()
    if kind in SKIN and choice < 0.7:
        texture = add_edges(skin_of(view, rng), shape, rng)
    elif kind in DARK and choice < 0.8:
        texture = dark(rng)
    else:
        texture = make_texture(crops, rng)
    if kind not in DARK and rng.random() < 0.3:  # as bright as the face
        texture = texture * (view.mean() / max(float(texture.mean()), 1))
    return view * (1 - mask[..., None]) + texture * mask[..., None], share


def make_sample(face: np.ndarray, crops: np.ndarray, rng: np.random.Generator) -> tuple:
    """(32, 32, 3) uint8 with other light, blur and noise, and the hidden share."""
    turn = cv2.getRotationMatrix2D((40, 40), rng.normal(0, 4), np.exp(rng.normal(0, 0.06)))
    turn[:, 2] += rng.normal(0, 1.3, 2) - (STORED - SIDE) / 2
    size = (SIDE, SIDE)
    view = cv2.warpAffine(face, turn, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    if rng.random() < 0.5:
        view = view[:, ::-1].copy()
    share = 0.0
    if rng.random() < 0.55:
        view, share = cover(view, crops, rng)
    if rng.random() < 0.4:
        view = np.repeat(view.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.6:
        view = (view - 128) * rng.uniform(0.5, 1.2) + 128 + rng.normal(0, 25)
    if rng.random() < 0.15:
        view = view * rng.uniform(0.15, 0.6)
    if rng.random() < 0.3:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 2.2))
    if rng.random() < 0.3:
        view = view + rng.normal(0, rng.uniform(1, 10), view.shape)
    small = cv2.resize(np.clip(view, 0, 255), (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8), share


def make_batch(
    numbers: np.ndarray, crops: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (B, 3, 32, 32) float32 in [0, 255], and targets (B,)."""
    samples = [make_sample(crops[i], crops, rng) for i in numbers]
    views = np.stack([view for view, _ in samples]).transpose(0, 3, 1, 2)
    return torch.from_numpy(views.copy()).float(), torch.tensor([share for _, share in samples])


def without_covers(numbers: np.ndarray, crops: np.ndarray, network: _CoverNetwork) -> np.ndarray:
    """The faces without the 3 % that look most covered."""
    edge = (STORED - SIDE) // 2
    views = np.stack(
        [
            cv2.resize(
                crops[i][edge : edge + SIDE, edge : edge + SIDE],
                (SMALL, SMALL),
                interpolation=cv2.INTER_AREA,
            )
            for i in numbers
        ]
    )
    with torch.inference_mode():
        found = network(torch.from_numpy(views).permute(0, 3, 1, 2).float()).numpy()
    return numbers[found <= np.quantile(found, 0.97)]


def describe(network: _CoverNetwork, views: torch.Tensor, shares: torch.Tensor) -> str:
    """Figures on faces with and without a cover."""
    with torch.inference_mode():
        found = network(views).numpy()
    known = shares.numpy()
    free, much = found[known == 0], found[known > 0.3]
    return (
        f"mean error {np.abs(found - known).mean():.3f}; over .25: "
        f"{(free > 0.25).mean():.2%} of free faces, {(much > 0.25).mean():.1%} of faces that are "
        f"covered by over 30 %"
    )


def main() -> None:
    """Train, print figures and write model.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=17)
    parser.add_argument("--start", type=Path, help="weights of an earlier run to continue from")
    args = parser.parse_args()
    torch.manual_seed(0)
    crops, people = read_crops(args.folder)
    parts = split(people)
    network = _CoverNetwork()
    if args.start is not None:
        network.load_state_dict({k: v.float() for k, v in load_file(args.start).items()})
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    rng, started, seconds = np.random.default_rng(2), time.monotonic(), 60 * args.minutes
    training = np.flatnonzero(parts == 0)
    is_clean = False
    while (passed := time.monotonic() - started) < seconds:
        if not is_clean and passed > seconds / 2:
            training, is_clean = without_covers(training, crops, network), True
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - passed / seconds) + 2e-5
        views, shares = make_batch(rng.choice(training, 128), crops, rng)
        loss = torch.nn.functional.binary_cross_entropy(network(views), shares)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, part, seed in (("validation", 1, 5), ("test", 2, 6)):
        numbers = np.tile(np.flatnonzero(parts == part), 2)
        batch = make_batch(numbers, crops, np.random.default_rng(seed))
        print(f"{name}: {describe(network, *batch)}")
    args.out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(state, args.out / "model.safetensors")


if __name__ == "__main__":
    main()
