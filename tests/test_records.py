"""JSON from files: one parser, whose errors are those of pyfau."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_models import tiny_model

from pyfau.commands.evaluate import _is_report
from pyfau.errors import ConfigError, InputError, PyfauError
from pyfau.evaluation.protocol import RECORD_FILE, Predictions, Store, read_record
from pyfau.models.config import MDHRConfig
from pyfau.models.frame_config import FrameConfig
from pyfau.records import parse_json
from pyfau.weights.manifest import parse_manifest
from pyfau.weights.networks import read_network

PACKAGE = Path(__file__).resolve().parents[1] / "pyfau"
# What may parse JSON by itself, and why.
ALLOWED = {
    "records.py",  # here it is done
    "locks.py",  # 4 KB of a lock file, for a message only
    "weights/hashes.py",  # a cache: what cannot be read is computed again
}
HOSTILE = {
    "nan": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "overflow": '{"a": 1e999}',
    "digits": '{"a": ' + "9" * 5000 + "}",
    "64 bits": '{"a": 99999999999999999999}',
    "repeated": '{"a": 1, "a": 2}',
    "deep lists": "[" * 200_000,
    "deep objects": '{"a":' * 100_000,
    "empty": "",
    "cut": '{"a": [1, 2',
    "control": '{"a": "\x1b"}',
    "latin": '{"a": "\udce9"}',
}
READERS: dict[str, Callable[[str], Any]] = {
    "records": lambda text: parse_json(text, "x"),
    "config": MDHRConfig.from_json,
    "frame config": FrameConfig.from_json,
    "manifest": parse_manifest,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", [name for name in HOSTILE if name != "latin"])
def test_what_is_no_json_is_one_error(reader: str, case: str) -> None:
    # The numbers of a config are refused by the checks of its fields, which name the field.
    with pytest.raises(PyfauError, match=r"cannot read |expected a JSON object") as raised:
        READERS[reader](HOSTILE[case])
    assert len(str(raised.value)) < 400
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("case", HOSTILE)
def test_files_with_what_is_no_json(case: str, tmp_path: Path) -> None:
    data = HOSTILE[case].encode(errors="surrogateescape")
    for name in ("config.json", RECORD_FILE):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError):
        read_network(tmp_path / "config.json")
    with pytest.raises(InputError, match=f"holds no predictions: {RECORD_FILE}"):
        read_record(tmp_path)
    with pytest.raises(InputError):
        Store(tmp_path, {})
    assert not _is_report(tmp_path / RECORD_FILE)


def test_no_other_module_parses_json() -> None:
    parsers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.loads", "json.load"):
                parsers.add(path.relative_to(PACKAGE).as_posix())
    assert parsers == ALLOWED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aus", "AU01"),
        ("aus", [1]),
        ("aus", None),
        ("thresholds", ["0.5"]),
        ("thresholds", {"AU01": 0.5}),
        ("backbone", 3),
        ("sha256", ["x"]),
        ("clip_length", -1),
        ("clip_length", 1.5),
        ("aligner", 7),
    ],
)
def test_records_of_predictions_with_wrong_types(field: str, value: Any, tmp_path: Path) -> None:
    record = {"aus": ["AU01"], "thresholds": [0.5]}
    (tmp_path / RECORD_FILE).write_text(json.dumps(record))
    assert read_record(tmp_path) == record
    (tmp_path / RECORD_FILE).write_text(json.dumps(record | {field: value}))
    with pytest.raises(InputError, match=f"{field} must be"):
        read_record(tmp_path)


def test_stored_scores_that_decode_to_much_more_are_computed_again(tmp_path: Path) -> None:
    store = Store(tmp_path, {"aus": ["AU01"], "thresholds": [0.5]})
    scores = np.zeros((2, 1), np.float32)
    store.save("video", ["a", "b"], Predictions(scores))
    assert store.load("video", ["a", "b"]) is not None
    np.savez_compressed(
        tmp_path / "video.npz",
        paths=np.array(["a", "b"]),
        scores=scores,
        failures=np.zeros(30_000_000, "S1"),
    )
    assert (tmp_path / "video.npz").stat().st_size < 200_000
    assert store.load("video", ["a", "b"]) is None


@pytest.mark.parametrize(
    "header",
    [
        {"descr": "<f4", "shape": (10**12, 1)},  # four terabytes
        {"descr": "<U0", "shape": (10**12,)},  # no bytes, and as many texts
        {"descr": "<f4", "shape": (3, 1)},
        {"descr": "|O", "shape": (2,)},
    ],
)
def test_stored_scores_whose_header_announces_too_much(
    tmp_path: Path, header: dict[str, Any]
) -> None:
    store = Store(tmp_path, {"aus": ["AU01"], "thresholds": [0.5]})
    store.save("video", ["a", "b"], Predictions(np.zeros((2, 1), np.float32)))
    path = tmp_path / "video.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, header | {"fortran_order": False})
    for name in members:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for other, data in members.items():
                archive.writestr(other, array.getvalue() + bytes(8) if other == name else data)
        assert store.load("video", ["a", "b"]) is None


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY\3\0", bytes(1000)])
def test_stored_scores_that_are_no_archive(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path, {"aus": ["AU01"], "thresholds": [0.5]})
    (tmp_path / "video.npz").write_bytes(content)
    assert store.load("video", ["a"]) is None
    with zipfile.ZipFile(tmp_path / "video.npz", "w") as archive:
        archive.writestr("scores.npy", content)
    assert store.load("video", ["a"]) is None


@pytest.mark.parametrize("value", [None, "x", [], {}, True, 1e300, -1, [[1e300] * 2] * 5])
def test_every_field_of_a_configuration_with_a_wrong_value(value: Any) -> None:
    good = json.loads(tiny_model(5).config.to_json())
    MDHRConfig.from_json(json.dumps(good))
    for field in good:
        if value == good[field] or (value is True and good[field] == 1):
            continue
        changed = json.dumps(good | {field: value})
        with suppress(ConfigError):  # another error fails the test
            MDHRConfig.from_json(changed)
