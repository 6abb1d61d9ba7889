from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np

# Here and in the processes that tests start: several threads on busy cores wait for each other most
# of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = Path(__file__).resolve().parent / "data"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {}
    if not config.getoption("--run-slow"):
        skips["slow"] = pytest.mark.skip(reason="slow: pass --run-slow")
    if not os.environ.get("PYFAU_TEST_NETWORK"):
        skips["network"] = pytest.mark.skip(reason="needs the internet: set PYFAU_TEST_NETWORK=1")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            skips["gpu"] = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        for marker, skip in skips.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")  # tracing would make them slower by half


@pytest.fixture(autouse=True)
def slow_processes_are_not_traced(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """coverage.py starts in every process that has this variable."""
    if request.node.get_closest_marker("slow"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests make pyfau remember stays out of the user's own cache."""
    os.environ["PYFAU_CACHE"] = str(tmp_path_factory.mktemp("pyfau-cache"))


@pytest.fixture
def rng() -> np.random.Generator:
    import numpy as np  # after the number of threads is set

    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips and images."""
    return DATA / "media"


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of stored outputs of the official MDHR code."""
    return DATA / "parity"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the training data and MediaPipe's model, which are too large for the
    repository.
    """
    if not SHARED.is_dir():
        pytest.skip(
            f"TRAINING DATA ARE MISSING: without {SHARED}, nothing is tried on them or with "
            "MediaPipe's model"
        )
    return SHARED
