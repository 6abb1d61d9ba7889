"""Make the files in tests/data/hostile: small valid files for `fuzz.py` to damage, and attacks.

    python scripts/make_hostile.py [FOLDER]

Each folder is named after a reader in `fuzz_readers.py`. Files named `valid*` are accepted by their
reader. All others must give one `PyfauError` or a result, within the limits of time and memory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import av
import numpy as np
from PIL import Image
from safetensors.numpy import save

from pyfau import weights
from pyfau.intensity import expected_intensity
from pyfau.result import AUResult
from pyfau.types import AURow

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "hostile"
AUS = ("AU01", "AU12")
ESCAPE = "\x1b]0;gone\x07"
DATE = "2026-01-01T00:00:00+00:00"
FORMULA = "=HYPERLINK(A1)"


def main(arguments: list[str]) -> None:
    """Write all files. The README of tests/data gets their hashes."""
    out = Path(arguments[0]) if arguments else OUT
    for make in (images, videos, tables, formats, lists, models):
        for name, content in make().items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    if out == OUT:
        list_files()


def list_files() -> None:
    """Write the table of files and hashes again, which ends the README of tests/data."""
    readme = OUT.parent / "README.md"
    head, mark, _ = readme.read_text().partition("| `hostile/")
    assert mark
    paths = sorted(path for path in OUT.rglob("*") if path.is_file())
    lines = [
        f"| `hostile/{path.relative_to(OUT).as_posix()}` | "
        f"`{hashlib.sha256(path.read_bytes()).hexdigest()}` |\n"
        for path in paths
    ]
    readme.write_text(head + "".join(lines))


def images() -> dict[str, bytes | str]:
    """Images of every format, and images that are something else or far too large."""
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    found: dict[str, bytes | str] = {}
    for suffix, name in (
        ("jpg", "JPEG"),
        ("png", "PNG"),
        ("bmp", "BMP"),
        ("tif", "TIFF"),
        ("webp", "WEBP"),
        ("ppm", "PPM"),
        ("jp2", "JPEG2000"),
        ("gif", "GIF"),
    ):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, name)
        found[f"image/valid.{suffix}"] = file.getvalue()
    found["frame/valid.jpg"] = found["image/valid.jpg"]
    rows = zlib.compress(bytes(30_000 * (1 + 30_000 // 8)), 9)
    found["image/bomb.png"] = _png(30_000, 30_000, rows)
    found["image/header_alone.png"] = _png(2**31 - 1, 2**31 - 1, b"")
    found["image/bomb.gif"] = (
        b"GIF89a"
        + struct.pack("<HHBBB", 65_000, 65_000, 0, 0, 0)
        + (b"," + struct.pack("<HHHHB", 0, 0, 65_000, 65_000, 0) + b"\x02\x01\x44\x00;")
    )
    found["image/bomb.ppm"] = b"P6\n1000000 1000000\n255\n"
    found["image/program.jpg"] = (
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/owned) (w) file closefile\n"
    )
    found["image/page.png"] = "<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/x'/>"
    found["image/empty.jpg"] = b""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 99, ESCAPE * 1000
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", exif=exif)
    found["image/exif.jpg"] = file.getvalue()
    return found


def _png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def videos() -> dict[str, bytes | str]:
    """Clips of several containers, play lists, and clips with impossible sizes and times."""
    found: dict[str, bytes | str] = {}
    for suffix, codec in (
        ("mp4", "mpeg4"),
        ("mkv", "mpeg4"),
        ("avi", "mjpeg"),
        ("ts", "mpeg2video"),
    ):
        found[f"video/valid.{suffix}"] = _clip(suffix, codec)
    found["clip/valid.mp4"] = found["video/valid.mp4"]
    clip = bytes(found["video/valid.mp4"])
    place = clip.index(b"mp4v") + 4 + 24
    found["video/huge_frames.mp4"] = clip[:place] + b"\xff\xff\xff\xff" + clip[place + 4 :]
    place = clip.index(b"stts") + 8
    found["video/endless.mp4"] = clip[:place] + b"\x00\xff\xff\xff" * 2 + clip[place + 8 :]
    found["video/list.mp4"] = "ffconcat version 1.0\nfile '/etc/hostname'\n"
    found["video/list.m3u8"] = "#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"
    found["video/text.avi"] = "RIFF" + "A" * 2000
    found["video/empty.mp4"] = b""
    return found


def _clip(suffix: str, codec: str) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    kind = {"ts": "mpegts", "mkv": "matroska"}.get(suffix, suffix)
    with av.open(file, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"flags": "+bitexact"}
        for _ in range(4):
            rgb = rng.integers(0, 256, (4, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def tables() -> dict[str, bytes | str]:
    """Tables that pyfau writes, their sidecars, and tables with impossible values."""
    found: dict[str, bytes | str] = {}
    result = _result()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in ("csv", "jsonl", "parquet"):
            path = getattr(result, f"to_{suffix}")(folder / f"valid.{suffix}")
            found[f"table/valid.{suffix}"] = path.read_bytes()
        sidecar = next(p for p in folder.iterdir() if p.name.startswith("valid.csv."))
        found["sidecar/valid.json"] = sidecar.read_bytes()
        elan = result.to_elan(folder / "valid.eaf").read_text()
        found["elan/valid.eaf"] = re.sub('DATE="[^"]*"', f'DATE="{DATE}"', elan)
        found["openface/valid.csv"] = result.to_openface(folder / "openface.csv").read_bytes()
        found["pyfeat/valid.csv"] = result.to_pyfeat().to_csv(index=False)
        found["events/valid.csv"] = result.to_events(folder / "events.csv").read_bytes()
    head, *lines = bytes(found["table/valid.csv"]).decode().splitlines()
    for what, value in {
        "huge_frame": "99999999999999999999",
        "nan_frame": "NaN",
        "infinite": "inf",
        "negative": "-1",
        "formula": FORMULA,
        "escape": ESCAPE,
        "nul": "\0",
    }.items():
        found[f"table/{what}.csv"] = "\n".join([head, value + lines[0][1:], *lines[1:]]) + "\n"
    found["table/doubled.csv"] = "\n".join([f"{head},{head}", *(f"{x},{x}" for x in lines)]) + "\n"
    found["table/short.csv"] = "\n".join([head, "1,2"]) + "\n"
    found["table/wide.csv"] = ",".join(f"AU{i:05d}" for i in range(5000)) + "\n"
    found["table/quote.csv"] = head + '\n"' + "a\n" * 1000
    found["table/deep.jsonl"] = "[" * 20_000
    found["table/number.jsonl"] = '{"frame": ' + "9" * 10_000 + "}\n"
    found["sidecar/deep.json"] = '{"a":' * 20_000
    found["sidecar/types.json"] = json.dumps(
        {"aus": 5, "complete": "yes", "fps": [], "failures": 3}
    )
    found["sidecar/list.json"] = "[]"
    found["sidecar/nan.json"] = (
        '{"complete": true, "fps": NaN, "rows": 1e400, "thresholds": {"AU01": NaN}}'
    )
    found["sidecar/escape.json"] = json.dumps(
        {"source": ESCAPE, "model": FORMULA, "warnings": [ESCAPE]}
    )
    return found


def _result() -> AUResult:
    result = AUResult(AUS, {"source": "clip.mp4", "fps": 25.0}, intensity=True)
    for frame in range(8):
        for face in range(2):
            scores = np.array([frame / 8, 1 - frame / 8], np.float32)
            result.append(
                AURow(
                    frame,
                    frame / 25,
                    face,
                    True,
                    0.99,
                    np.array([1, 2, 30, 40], np.float32) + 50 * face,
                    np.full((5, 2), 9, np.float32),
                    scores,
                    scores >= 0.5,
                    AUS,
                    intensity=expected_intensity(scores, [(1.5, -3.0)] * 2),
                )
            )
    return result


def formats() -> dict[str, bytes | str]:
    """Files of other programs with attacks."""
    entities = "".join(
        f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' if i else '<!ENTITY e0 "ha">' for i in range(12)
    )
    external = '<!DOCTYPE A [<!ENTITY x SYSTEM "file:///etc/hostname">]><A>&x;</A>'
    return {
        "elan/entities.eaf": "<!DOCTYPE A "
        f"[{entities}]><ANNOTATION_DOCUMENT>&e11;</ANNOTATION_DOCUMENT>",
        "elan/external.eaf": external,
        "elan/deep.eaf": "<a>" * 20_000,
        "openface/names.csv": f"frame, face_id, {ESCAPE}, AU01_r\n0, 0, 1, {FORMULA}\n",
        "openface/huge.csv": "frame, face_id, timestamp, confidence, success, AU01_c\n1e300, 0, 0, "
        "1, 1, 1\n",
        "pyfeat/huge.csv": "frame,AU01,AU12\n1e300,nan,inf\n",
        "events/huge.csv": "face_id,au,onset_frame,offset_frame\n0,AU01,99999999999999999999,-1\n",
        "bids/valid.tsv": "onset\tduration\ttrial_type\n0.04\t1\tgo\n0.2\tn/a\tstop\n",
        "bids/formula.tsv": f"onset\tvalue\n-1e300\t{FORMULA}\n0.1\t{ESCAPE}\n",
        "bids/names.tsv": "onset\tonset_s\tcode\n1\t2\t3\n",
        "bids/wide.tsv": "onset\n1\t2\t3\n",
        "labels/valid.csv": "frame,face_id,AU01,AU12\n0,0,1,0\n1,0,0,1\n2,0,9,-1\n",
        "labels/huge.csv": "frame,AU01\n" + "9" * 400 + ",1\n",
        "labels/wide.csv": "frame," + ",".join(f"AU{i}" for i in range(5000)) + "\n",
        "labels/nul.csv": "frame,AU01\n\0,1\n",
    }


def lists() -> dict[str, bytes | str]:
    """Job lists and lists of evaluation images."""
    return {
        "jobs/valid.txt": "clip.mp4\n# a comment\nother.mp4\ncamera:0\n",
        "jobs/odd.txt": (
            f"{ESCAPE}.mp4\n=cmd.mp4\nfile://%00\nfile://%ff%1b\n"
            f"{'a' * 5000}\ncamera:{'9' * 5000}\n"
        ),
        "jobs/binary.txt": bytes(range(256)),
        "frames/valid.txt": "".join(f"F001/T1/{i}.jpg\n" for i in range(4)),
        "frames/outside.txt": "../../etc/passwd/1.jpg\n",
        "frames/digits.txt": f"F001/T1/{'9' * 5000}.jpg\n",
    }


def models() -> dict[str, bytes | str]:
    """Configurations, manifests, and weights in both formats."""
    folder = Path(weights.__file__).parents[1] / "assets"
    config = (folder / "mdhr-lite" / "config.json").read_text()
    record = json.loads(config)
    found: dict[str, bytes | str] = {"config/valid.json": config}
    odd = {"null": None, "huge": 10**30, "text": ESCAPE, "list": [[[]]]}
    for key in ("thresholds", "aus", "name", "backbone"):
        for what, value in odd.items():
            found[f"config/{key}_{what}.json"] = json.dumps(record | {key: value})
    found["config/deep.json"] = "[" * 20_000
    found["config/digits.json"] = '{"aus": [' + "9" * 10_000 + "]}"
    found["manifest/valid.json"] = (folder.parent.parent / "weights_manifest.json").read_text()
    found["safetensors/valid.safetensors"] = save({"a.weight": np.zeros((2, 3), np.float32)})
    for what, header in {
        "overlap": '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        "huge": '{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}}',
        "deep": '{"a":' * 20_000,
    }.items():
        data = header.encode()
        found[f"safetensors/{what}.safetensors"] = struct.pack("<Q", len(data)) + data + bytes(12)
    found["safetensors/length.safetensors"] = struct.pack("<Q", 2**63) + b"{}"
    found["checkpoint/valid.pth"] = _checkpoint(b"\x80\x02}q\x00.")
    found["checkpoint/program.pth"] = _checkpoint(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    found["checkpoint/recursion.pth"] = _checkpoint(b"\x80\x02" + b"]" * 20_000 + b".")
    found["checkpoint/bomb.pth"] = _checkpoint(b"\x80\x02}q\x00.", bytes(100_000_000))
    found["checkpoint/plain.pth"] = b"\x80\x02}q\x00."
    found["checkpoint/zipped.pth"] = gzip.compress(b"\x80\x02}q\x00.", mtime=0)
    return found


def _checkpoint(program: bytes, data: bytes = b"") -> bytes:
    """A zip file as `torch.save` writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": program, "version": b"3\n", "data/0": data}.items():
            info = zipfile.ZipInfo(f"archive/{name}")
            info.compress_type = zipfile.ZIP_DEFLATED if len(content) > 9999 else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return file.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
