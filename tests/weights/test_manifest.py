"""The manifest: true to the models it lists, and refused when it is not what it may be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pyfau.aus import au_name
from pyfau.errors import WeightsError
from pyfau.models.config import BACKBONES, read_config
from pyfau.models.paper import DATA_SETS, paper_config
from pyfau.weights.manifest import parse_manifest, read_manifest
from pyfau.weights.networks import NETWORKS
from pyfau.weights.official_frames import known_configs

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Draft202012Validator(
    json.loads((ROOT / "docs/weights_manifest.schema.json").read_text(encoding="utf-8"))
)
TEXT = (ROOT / "weights_manifest.json").read_text(encoding="utf-8")
MODELS: dict[str, dict[str, Any]] = json.loads(TEXT)["models"]
HUB = {
    **{k: v for k, v in MODELS["mdhr-lite"].items() if k != "version"},
    "status": "hub",
    "repo": "user/repo",
    "revision": "0" * 40,
    "config_sha256": "0" * 64,
}
CONVERT = MODELS["mdhr-swinb-disfa-fold3"]
UNPINNED = MODELS["pyfeat-convnextv2t-multitask"]
BY_HAND = MODELS["libreface-resnet18-joint"]
OFFICIAL = UNPINNED | {
    "status": "official",
    "revision": "0" * 40,
    "sha256": "0" * 64,
    "bytes": 100,
}
EVERY = {
    "bundled": MODELS["mdhr-lite"],
    "hub": HUB,
    "convert": CONVERT,
    "unpinned": UNPINNED,
    "by hand": BY_HAND,
    "official": OFFICIAL,
}
Record = dict[str, Any]


def schema_accepts(manifest: Any) -> bool:
    return bool(SCHEMA.is_valid(manifest))


def we_accept(manifest: Any) -> bool:
    try:
        parse_manifest(json.dumps(manifest))
    except WeightsError:
        return False
    return True


def one(record: Any, name: str = "a-model") -> Record:
    return {"format": 1, "models": {name: record}}


# What it says


def test_the_manifest_follows_its_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA.schema)
    assert [error.message for error in SCHEMA.iter_errors(json.loads(TEXT))] == []
    assert schema_accepts(one(HUB))
    assert parse_manifest(TEXT).keys() == MODELS.keys() == read_manifest().keys()


@pytest.mark.parametrize("name", MODELS)
def test_entries_agree_with_the_networks_they_name(name: str) -> None:
    record = MODELS[name]
    assert record["network"] in NETWORKS
    if record["network"] != "mdhr":
        check_other_network(name, record)
        return
    assert record["backbone"] in BACKBONES
    if record["status"] == "bundled":
        config = read_config(ROOT / "pyfau" / "assets" / name / "config.json")
        assert (config.network, config.backbone, config.version) == (
            record["network"],
            record["backbone"],
            record["version"],
        )
    else:
        config = paper_config(record["data"], record["backbone"])
        assert name == f"{config.name}-fold{record['fold']}"
        assert record["fold"] in (1, 2, 3)
        assert record["data"] in DATA_SETS
    assert list(config.aus) == record["aus"]
    assert [list(point) for point in config.template] == record["template"]
    assert config.aligner == read_manifest()[name].aligner
    metrics = record["reported_metrics"]
    assert metrics["protocol"]
    if "f1" in metrics:
        assert list(metrics["f1"]) == [au_name(au) for au in record["aus"]]
        assert sum(metrics["f1"].values()) / len(record["aus"]) == pytest.approx(
            metrics["average_f1"], abs=0.06
        )
    # Figures of other weights are not kept when new ones come.
    assert metrics.get("version") == record.get("version")


def check_other_network(name: str, record: dict[str, Any]) -> None:
    """An entry of another project is of a network that pyfau builds, and states no hash yet."""
    config = {config.name: config for config in known_configs()}[name.partition("-fold")[0]]
    assert record["status"] == "unpinned"
    assert (record["network"], record["backbone"]) == (config.network, config.backbone)
    assert record["data"] == config.name.rsplit("-", 1)[-1]
    assert record["aus"] == list(dict.fromkeys(config.aus))
    template = [list(point) for point in config.template]
    assert np.allclose(record.get("template", []), template, atol=1e-6)
    assert config.aligner == read_manifest()[name].aligner
    assert record["sha256"] == record.get("revision", "") == ""
    assert record["source"].endswith((".", "checked", "own", "yet"))


# What it may not say

BAD = {
    "status": ["published", "", None, ["hub"]],
    "network": ["", "MDHR", "a" * 41, "../mdhr", 3, "mdhr\n"],
    "aus": [[], [0], [1, 1], [1.5], "1 2", list(range(1, 70)), [True], [[]]],
    "aligner": ["", "fan", "auto", None, ["mtcnn"]],
    "template": [
        [],
        [[0.5, 0.5]] * 4,
        [[0, 0.5]] * 5,
        [[0.5, 0.5, 0.5]] * 5,
        [[0.5, "0.5"]] * 5,
        "bp4d",
        None,
    ],
    "file": [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "..safetensors",
        ".safetensors",
        "model.pth",
        "model.safetensors\n",
        "C:model.safetensors",
        "\x00.safetensors",
        "~.safetensors",
        "a" * 100 + ".safetensors",
        "",
        3,
        None,
        "con..safetensors",
    ],
    "sha256": ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", None, 0],
    "bytes": [0, -1, 4_000_000_001, 1.5, "1", None, True],
    "repo": [
        "user",
        "user/",
        "/repo",
        "a/b/c",
        "../repo",
        "user/..",
        ".user/repo",
        "user/re po",
        "https://a/b",
        None,
    ],
    "revision": ["main", "v1", "0" * 39, "0" * 41, "g" * 40, None, 0],
    "config_sha256": ["main", None],
    "training_terms": ["", 3, None, "a" * 2001],
    "fold": [0, 101, "1", 1.5, None],
    "reported_metrics": [
        {},
        [],
        "66.6",
        {"protocol": ""},
        {"protocol": "p", "f1": "66"},
        {"protocol": "p", "f1": {"AU01": "high"}},
        {"protocol": "p", "f1": [1]},
        {"protocol": 3},
        {"protocol": "p", "average_f1": None},
    ],
    "colour": ["red"],
    "official_file": ["best_model_fold1.pth"],  # of a model that is published
}


@pytest.mark.parametrize("field", BAD)
def test_fields_that_are_refused(field: str) -> None:
    for value in BAD[field]:
        manifest = one(HUB | {field: value})
        with pytest.raises(WeightsError, match=field) as caught:
            parse_manifest(json.dumps(manifest), origin="theirs.json")
        assert "theirs.json: model 'a-model'" in str(caught.value)
        assert len(str(caught.value)) < 600
        assert not schema_accepts(manifest), value


@pytest.mark.parametrize("kind", EVERY)
def test_every_field_that_is_needed_is_missed(kind: str) -> None:
    record = EVERY[kind]
    assert schema_accepts(one(record))
    optional = {"aligner", "fold", "reported_metrics", "template"}
    for field in record:
        manifest = one({k: v for k, v in record.items() if k != field})
        assert schema_accepts(manifest) == we_accept(manifest) == (field in optional), field


@pytest.mark.parametrize(
    "link", ["http://a.b/c", "file:///etc", "https://a b", "https://a\n", "", 3, None]
)
def test_links_that_are_refused(link: Any) -> None:
    manifest = one(CONVERT | {"official_folder": link})
    assert not we_accept(manifest)
    assert not schema_accepts(manifest)


@pytest.mark.parametrize(
    "name", ["", "../evil", "/etc/evil", "a/b", "a\\b", "A", "a--b", "-a", "a.", "a\n", "a" * 101]
)
def test_names_that_are_refused(name: str) -> None:
    assert not we_accept(one(HUB, name))
    assert not schema_accepts(one(HUB, name))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"models": {}}',
        '{"format": 2, "models": {}}',
        '{"format": true, "models": {}}',
        '{"format": 1, "models": []}',
        '{"format": 1, "models": {}, "more": 1}',
        '{"format": 1, "models": {"a": []}}',
        "[" * 100_000,
    ],
)
def test_files_that_are_no_manifest(text: str) -> None:
    with pytest.raises(WeightsError, match=r"weights_manifest\.json"):
        parse_manifest(text)


WORDS = st.text("aé0/.\n", max_size=6)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
POOL = [value for values in BAD.values() for value in values]


@settings(deadline=None)
@given(st.data())
def test_the_schema_and_the_package_agree(data: st.DataObject) -> None:
    record = copy.deepcopy(data.draw(st.sampled_from(list(EVERY.values()))))
    values = (
        st.sampled_from(POOL)
        | JSON
        | st.sampled_from([v for r in EVERY.values() for v in r.values()])
    )
    for field in data.draw(
        st.lists(
            st.sampled_from([*HUB, *CONVERT, *OFFICIAL, "fold", "odd"]), min_size=1, max_size=2
        )
    ):
        if data.draw(st.booleans()):
            record[field] = data.draw(values)
        else:
            record.pop(field, None)
    manifest = one(record)
    if not has_whole_floats(record):  # JSON Schema takes 1.0 for an integer
        assert schema_accepts(manifest) == we_accept(manifest)


def has_whole_floats(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_whole_floats, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value.is_integer()
