"""Many inputs: what each gets, how they are shared out, and what happens when workers die."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfau import AUDetector, AUResult, OptionError, PyfauError
from pyfau.batch.plan import Job, expand, plan_jobs
from pyfau.batch.remote import at_hand
from pyfau.batch.run import JobOptions, Report, run_job
from pyfau.batch.workers import LocalWorkers, Lost, share_out
from pyfau.cli import main
from pyfau.cores import own_cores, usable_cores
from pyfau.errors import MediaError
from pyfau.limits import Limits
from pyfau.tables.metadata import read_metadata

ROOT = Path(__file__).resolve().parents[2]
make = partial(AUDetector, device="cpu")


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return make()


class ScriptedWorkers:
    """Says what a script says about each attempt: True for done, False for dead."""

    def __init__(self, script: dict[str, list[bool]]) -> None:
        self.script = {source: list(answers) for source, answers in script.items()}
        self.begun: list[tuple[str, bool]] = []
        self.at: dict[int, Job] = {}
        self.alive: set[int] = set()
        self.most = self.started = self.stopped = 0

    def start(self) -> int:
        self.started += 1
        self.alive.add(self.started)
        return self.started

    def submit(self, worker: int, job: Job, again: bool) -> None:
        assert worker in self.alive
        assert worker not in self.at
        self.begun.append((job.source, again))
        self.at[worker] = job
        self.most = max(self.most, len(self.at))

    def wait(self, busy: Sequence[int]) -> list[tuple[int, Report | Lost | PyfauError]]:
        assert set(busy) == set(self.at)
        worker = max(busy)
        job = self.at.pop(worker)
        if self.script[job.source].pop(0):
            return [(worker, Report(job.source, job.table, "done"))]
        self.alive.remove(worker)
        return [(worker, Lost("SIGKILL"))]

    def stop(self) -> None:
        self.stopped += 1


def jobs_for(sources: Sequence[str], folder: Path = Path("out")) -> list[Job]:
    return plan_jobs(list(sources), folder, None, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(1, 4))
def test_every_input_is_reported_once_whatever_dies(deaths: list[int], count: int) -> None:
    names = [f"{i}.mp4" for i in range(len(deaths))]
    workers = ScriptedWorkers(dict(zip(names, ([False] * n + [True] for n in deaths), strict=True)))
    finished = list(share_out(workers, jobs_for(names), count))
    assert sorted(report.source for report in finished) == names
    reports = {report.source: report for report in finished}
    for name, times in zip(names, deaths, strict=True):
        assert reports[name].status == ("done" if times < 3 else "failed")
        assert reports[name].tries == min(times + 1, 3)
        assert [again for source, again in workers.begun if source == name] == [False, True, True][
            : min(times + 1, 3)
        ]
        if times >= 3:
            assert (
                "the worker that scored it died 3 times, at last with SIGKILL"
                in reports[name].complaints[0]
            )
    assert workers.most <= count
    assert workers.stopped == 1


def test_workers_are_stopped_when_nobody_wants_the_rest() -> None:
    workers = ScriptedWorkers({"a.mp4": [True], "b.mp4": [True]})
    reports = share_out(workers, jobs_for(["a.mp4", "b.mp4"]), 1)
    next(reports)
    reports.close()
    assert workers.stopped == 1


def test_a_detector_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    workers = LocalWorkers(partial(AUDetector, "mdhr-nonsense"), JobOptions())
    with pytest.raises(PyfauError, match="unknown model 'mdhr-nonsense'"):
        list(share_out(workers, jobs_for(["a.mp4", "b.mp4"], tmp_path), 2))


def refuse() -> AUDetector:
    """In the place of a detector: the share of this worker in the cores."""
    raise PyfauError(f"{usable_cores()} cores, {own_cores()} of them for this worker")


@pytest.mark.parametrize("count", [1, 2])
def test_busy_workers_share_the_cores(tmp_path: Path, count: int) -> None:
    workers = LocalWorkers(refuse, JobOptions())
    cores = usable_cores()
    expected = f"{cores} cores, {max(1, cores // count)} of them"
    with pytest.raises(PyfauError, match=expected):
        list(share_out(workers, jobs_for(["a.mp4", "b.mp4"][:count], tmp_path), count))


def test_tables_of_uris_have_the_same_name_in_every_list() -> None:
    first, second, plain = "s3://a/1/clip.mp4", "s3://a/2/clip.mp4", "clip.mp4"
    tables = [job.table for job in jobs_for([first, second, plain])]
    assert len(set(tables)) == 3
    assert tables[2] == Path("out/clip.csv")
    assert [job.table for job in jobs_for([second, first])] == [tables[1], tables[0]]


def test_many_inputs_of_one_name(tmp_path: Path) -> None:
    """As with a folder for each participant."""
    started = time.process_time()
    tables = [job.table.name for job in jobs_for([f"gone/{i}/a.mp4" for i in range(30_000)])]
    assert time.process_time() - started < 30
    assert tables[:4] == ["a.csv", "a_mp4.csv", "a_mp4-2.csv", "a_mp4-3.csv"]
    assert tables[-1] == "a_mp4-29999.csv"
    assert len(set(tables)) == 30_000


def test_lists_hold_paths_and_uris(tmp_path: Path) -> None:
    text = (
        f"# clips\n\nfile://{tmp_path}/a b.mp4\n  s3://bucket/c.mp4  \n{tmp_path}/a b.mp4\nd.mp4\n"
    )
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert expand([f"@{tmp_path}/list.txt"]) == [
        f"{tmp_path}/a b.mp4",
        "s3://bucket/c.mp4",
        "d.mp4",
    ]
    with pytest.raises(OptionError, match=r"gone.txt: expected a text file"):
        expand([f"@{tmp_path}/gone.txt"])


@pytest.fixture
def archive(media: Path, tmp_path: Path) -> str:
    """An fsspec URI that is no local file."""
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as file:
        file.write(media / "single_face.jpg", "deep/man.jpg")
    return f"zip://deep/man.jpg::file://{tmp_path}/clips.zip"


def test_a_remote_input_is_copied_scored_and_recognised(
    detector: AUDetector, archive: str, tmp_path: Path
) -> None:
    (job,) = jobs_for([archive], tmp_path / "out")
    assert run_job(detector, job, JobOptions()).status == "done"
    record = read_metadata(job.table)
    assert record["source"] == record["input"]["path"] == archive
    assert record["input"]["bytes"] > 0
    (row,) = AUResult.read_csv(job.table)
    assert row.file == archive
    assert run_job(detector, job, JobOptions(resume=True)).status == "skipped"
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as file:
        file.writestr("deep/man.jpg", b"another")
    report = run_job(detector, job, JobOptions(resume=True))
    assert (report.status, report.failures) == ("failed", 1)
    (gone,) = jobs_for([archive.replace("man", "woman")], tmp_path / "out")
    assert (
        "could not be fetched: FileNotFoundError"
        in run_job(detector, gone, JobOptions()).complaints[0]
    )


def test_a_remote_input_that_inflates_to_too_much_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.mp4", bytes(10_000_000))
    # Files whose size is known only when they have been read.
    info = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *args: {**info(*args), "size": None})
    MemoryFileSystem().pipe("/a.mp4", bytes(10_000_000))
    limits = Limits(remote_bytes=6_000_000)
    message = "expected at most 6000000; raise the limits"
    for uri in (f"zip://a.mp4::file://{tmp_path}/a.zip", "memory:///a.mp4"):
        with pytest.raises(MediaError, match=message), at_hand(uri, limits):
            pytest.fail("it was copied")
        with at_hand(uri) as path:
            assert path.stat().st_size == 10_000_000


def test_a_remote_input_names_no_other_files(tmp_path: Path) -> None:
    """Old versions of fsspec even run expressions of Jinja in such a file."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    references = {"version": 1, "refs": {"a.mp4": [str(secret), 0, 6]}}
    (tmp_path / "a.json").write_text(json.dumps(references))
    direct = f"reference://a.mp4::{tmp_path}/a.json"
    for uri in (direct, f"simplecache::{direct}"):
        with pytest.raises(MediaError, match="reference:// is refused"), at_hand(uri):
            pytest.fail("it was copied")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_in_a_circle_are_an_input_that_cannot_be_read(
    detector: AUDetector, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "a.mp4").symlink_to("a.mp4")
    (job,) = jobs_for([str(tmp_path / "a.mp4")], tmp_path / "out")
    report = run_job(detector, job, JobOptions())
    assert report.complaints == [
        f"pyfau: {tmp_path}/a.mp4: not a regular file; expected a video file"
    ]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--gpu-share", "1"], "are for --runner ray"),
        (["--runner", "ray", "--format", "csv"], "writes a folder of Parquet files"),
        (["--runner", "ray", "--gpu-share", "-1"], "--gpu-share must be a number of GPUs"),
        (["--jobs", "2"], "score camera:0 alone"),
    ],
)
def test_options_that_make_no_sense(
    tmp_path: Path, capsys: Any, options: list[str], message: str
) -> None:
    inputs = ["a.mp4", "camera:0" if options == ["--jobs", "2"] else "b.mp4"]
    assert main(["detect", *inputs, *options, "-o", str(tmp_path / "out"), "--quiet"]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_jobs_write_what_one_job_writes(media: Path, tmp_path: Path, capsys: Any) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "bad.mp4").write_bytes(b"no video")
    shutil.copy(media / "single_face.mp4", clips / "man.mp4")
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(media / "single_face.jpg", images / "1.jpg")
    inputs = ["detect", str(clips), str(images), "--threads", "1", "--quiet"]
    for name, jobs in (("one", "1"), ("two", "2")):
        out = [
            "-o",
            str(tmp_path / name),
            "--overlay",
            str(tmp_path / f"{name}-drawn"),
            "--jobs",
            jobs,
        ]
        assert main([*inputs, *out]) == 1
        assert f"{clips / 'bad.mp4'}: not a video" in capsys.readouterr().err
    for name in ("man.csv", "images.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert {p.name for p in (tmp_path / "two-drawn").iterdir()} == {"man.mp4", "images.mp4"}
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "two").iterdir()}
    assert main([*inputs, *out, "--resume"]) == 1
    assert capsys.readouterr().out.count("done already") == 2
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "two").iterdir()} == before


def long_clips(media: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    return [
        Path(shutil.copy(media / "WolfgangLanger_Pexels.mp4", folder / f"{i}.mp4"))
        for i in range(count)
    ]


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_the_input_of_a_killed_process_is_tried_again(media: Path, tmp_path: Path) -> None:
    clips = long_clips(media, tmp_path / "clips", 2)
    jobs = jobs_for([str(clip) for clip in clips], tmp_path / "out")
    workers = LocalWorkers(partial(make, batch_size=4), JobOptions())

    def kill() -> None:
        wait_for(lambda: lines(jobs[0].table) > 20)
        workers._workers[0].process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    reports = {report.source: report for report in share_out(workers, jobs, 2)}
    killer.join()
    assert sorted(report.tries for report in reports.values()) == [1, 2]
    for job in jobs:
        assert reports[job.source].rows == lines(job.table) - 1 == 472
        assert read_metadata(job.table)["complete"] is True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SIGINT", 130),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("SIGKILL", -9, marks=pytest.mark.slow),
    ],
)
def test_an_end_leaves_valid_tables_and_no_processes(
    media: Path, tmp_path: Path, name: str, status: int
) -> None:
    long_clips(media, tmp_path / "clips", 2)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "pyfau",
        "detect",
        tmp_path / "clips",
        "-o",
        out,
        "--jobs",
        "2",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        [*command, "--batch-size", "4", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(
            lambda: (
                process.poll() is not None or all(lines(out / f"{i}.csv") > 20 for i in range(2))
            )
        )
        task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [Path("/proc") / pid for pid in task.read_text().split()]
        assert len(children) >= 2
        if name == "SIGKILL":
            process.kill()
        else:
            os.killpg(process.pid, getattr(signal, name))  # as a terminal does: to all of them
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, complaint
    wait_for(lambda: not any(child.exists() for child in children))
    assert complaint == (
        "pyfau: interrupted; the rows written so far are kept\n" if name == "SIGINT" else ""
    )
    for i in range(2):
        result = AUResult.read_csv(out / f"{i}.csv")
        assert list(result.frames) == list(range(len(result)))
        assert 20 <= len(result) < 472
        assert json.loads((out / f"{i}.csv.json").read_text())["complete"] is False


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_costs_nothing(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from pyfau.batch.ray import score_on_ray

    pids = tmp_path / "pids"
    pids.mkdir()

    def make_and_tell() -> AUDetector:
        import os
        from pathlib import Path

        from pyfau import AUDetector

        detector = AUDetector(device="cpu")
        (Path(pids) / str(os.getpid())).touch()
        return detector

    clips = long_clips(media, tmp_path / "clips", 2)
    (clips[0].parent / "bad.mp4").write_bytes(b"no video")
    shutil.copy(media / "single_face.mp4", clips[0].parent / "man.mp4")
    sources = expand([str(clips[0].parent)])
    out = tmp_path / "out"
    jobs = plan_jobs(sources, out, "parquet", None)

    def kill() -> None:
        wait_for(lambda: len(list(pids.iterdir())) == 2 and any(out.glob(".1.parquet.*.part")), 300)
        os.kill(int(min(pids.iterdir()).name), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else whatever runs beside comes first
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        reports = {
            report.source: report
            for report in score_on_ray(make_and_tell, jobs, JobOptions(), out, count=2)
        }
        killer.join()
        assert sorted(report.tries for report in reports.values()) == [1, 1, 1, 2]
        assert len(list(pids.iterdir())) == 3
        tables = {
            job.table: AUResult.read_parquet(job.table)
            for job in jobs
            if not job.source.endswith("bad.mp4")
        }
        assert [len(result) for result in tables.values()] == [472, 472, 72]
        # In this clip, the woman's hand covers her face for some frames.
        told = [warning for result in tables.values() for warning in result.warnings]
        assert all("covered" in warning for warning in told)
        with (out / "_inputs.csv").open(newline="", encoding="utf-8") as file:
            rows = {row["input"]: row for row in csv.DictReader(file)}
        assert {source: row["status"] for source, row in rows.items()} == {
            source: "failed" if source.endswith("bad.mp4") else "done" for source in sources
        }
        assert "not a video file" in rows[str(clips[0].parent / "bad.mp4")]["error"]
        before = {table: table.stat().st_mtime_ns for table in tables}
        again = list(score_on_ray(make_and_tell, jobs, JobOptions(resume=True), out, count=1))
        assert sorted(report.status for report in again) == [
            "failed",
            "skipped",
            "skipped",
            "skipped",
        ]
        assert {table: table.stat().st_mtime_ns for table in tables} == before
        with (out / "_inputs.csv").open(newline="", encoding="utf-8") as file:
            assert sorted(row["input"] for row in csv.DictReader(file)) == sorted(sources)
    finally:
        ray.shutdown()
