"""Score many inputs: one after another, in several processes, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfau.batch.plan import CAMERA, Job, expand, is_table, plan_jobs
from pyfau.batch.run import JobOptions, Report, run_job
from pyfau.checks import check_choice, check_rules, check_threads
from pyfau.choices import Runner, TableFormat
from pyfau.cores import usable_cores
from pyfau.files import real_path
from pyfau.limits import LIMITS, Limits
from pyfau.types import StrPath

if TYPE_CHECKING:
    from pyfau.analysis.features import Features
    from pyfau.detector import AUDetector

_NOT_TABLES = (".txt", ".tsv", ".json", ".xlsx", ".xls", ".feather")
_MOST_GPUS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """How the inputs of a run are scored. `pyfau detect` has an option for each attribute.

    Attributes:
        format: Format of the tables in a folder; None for "csv", or "parquet" on a cluster.
        overlay: Also write overlays: a folder, or a file for one input.
        summary: Also write one table of features, a .csv file: one row per input and face.
        jobs: Number of inputs to score in parallel, each in its own process. None for 1; on a
            cluster, for as many as it has room for.
        threads: CPU threads of each job. None for torch's number; several jobs share the cores.
        resume: Skip inputs whose table is complete and has the same settings.
        overwrite: Also replace files that are not tables of pyfau.
        fps: Frames per second of folders of images.
        independent: Score the images of a folder independently of each other.
        seconds: Stop a camera after this time.
        stream: Which video stream of files with several, from 0; None for the default.
        runner: "local" for this machine, "ray" for a Ray cluster.
        ray_address: Address of the cluster; None for the one that Ray finds, or a new one.
        gpu_share: GPUs per job on the cluster; None for 1 if the device is CUDA, otherwise 0.
    """

    format: TableFormat | None = None
    overlay: StrPath | None = None
    summary: StrPath | None = None
    jobs: int | None = None
    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    fps: float | None = None
    independent: bool = False
    seconds: float | None = None
    stream: int | None = None
    runner: Runner = "local"
    ray_address: str | None = None
    gpu_share: float | None = None


class Batch:
    """Inputs that are scored while the batch is iterated over, once.

    After the last report, the table of features is written if the options name one.

    Args:
        jobs: The inputs with their tables.
        reports: Scores the inputs.
        summary: The table of features, or None.
        parallel: Whether several inputs are scored at the same time.
        limits: Of the tables that are summarised.

    Attributes:
        features: The features, after the last report. None if the options name no table of
            features, or if every input failed.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        reports: Generator[Report, None, None],
        summary: Path | None,
        parallel: bool,
        limits: Limits = LIMITS,
    ) -> None:
        self.jobs = list(jobs)
        self.parallel = parallel
        self.features: Features | None = None
        self._reports = reports
        self._summary = summary
        self._limits = limits

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Generator[Report, None, None]:
        """Score the inputs. The reports come in the order in which the inputs are finished.

        Raises:
            PyfauError: The detector cannot be made, or no table can be summarised.
        """
        scored: set[Path] = set()
        with closing(self._reports):
            for report in self._reports:
                if report.status != "failed":
                    scored.add(real_path(report.table))
                yield report
        self._summarize(scored)

    def _summarize(self, scored: set[Path]) -> None:
        """Write the features of the inputs that were scored, in the order of the inputs."""
        from pyfau.analysis.features import summarize_tables

        tables = [job.table for job in self.jobs if real_path(job.table) in scored]
        if self._summary is None or not tables:
            return
        self.features = summarize_tables(tables, limits=self._limits)
        self.features.to_csv(self._summary)


def score(
    inputs: Sequence[str],
    output: StrPath,
    options: ScoreOptions | None = None,
    detector: Mapping[str, Any] | None = None,
) -> Batch:
    """Score inputs and write one table for each, as `pyfau detect` does.

    A bad input is reported, and the others are scored::

        for report in score(["recordings/"], "scores/", ScoreOptions(jobs=4, resume=True)):
            print(report.said or report.complaints)

    Args:
        inputs: Videos, images, folders, glob patterns, cameras ("camera:0"), URIs for fsspec, or
            "@LIST", a text file with one input per line.
        output: A folder; or a .csv, .parquet or .jsonl file for one input.
        options: How to score; None for the defaults.
        detector: Arguments of `AUDetector`; None for its defaults.

    Returns:
        A report for each input. The inputs are scored while the batch is iterated over.

    Raises:
        OptionError: An option has a wrong value, or does not apply to the inputs.
        PyfauError: The detector cannot be made. With several jobs, the iteration raises it.
    """
    options = options or ScoreOptions()
    output = Path(output)
    arguments = dict(detector or {})
    limits = arguments.get("limits", LIMITS)
    inputs = expand(inputs, limits)
    _check_output(output, options.format, inputs)
    _check_inputs(options, inputs)
    _check_runner(options, output, inputs)
    check_threads(options.threads)
    format_ = options.format
    if format_ is None and options.runner == "ray":
        format_ = "parquet"
    overlay = None if options.overlay is None else Path(options.overlay)
    jobs = plan_jobs(inputs, output, format_, overlay)
    summary = None if options.summary is None else Path(options.summary)
    _check_summary(summary, jobs, options.overwrite)
    _check_baseline(options, arguments)
    parallel = options.runner == "ray" or min(options.jobs or 1, len(jobs)) > 1
    reports = _reports(jobs, output, options, arguments)
    return Batch(jobs, reports, summary, parallel, limits)


def make_detector(arguments: Mapping[str, Any], threads: int | None = None) -> AUDetector:
    """Make the detector of a worker.

    Args:
        arguments: Arguments of `AUDetector`.
        threads: CPU threads of the whole process; None leaves them as they are.

    Raises:
        PyfauError: An option has a wrong value, or the model is not available.
    """
    from pyfau.detector import AUDetector
    from pyfau.models.devices import set_threads

    set_threads(threads)
    return AUDetector(**arguments)


def _reports(
    jobs: Sequence[Job], output: Path, options: ScoreOptions, detector: dict[str, Any]
) -> Generator[Report, None, None]:
    """Choose where the inputs are scored."""
    shared = JobOptions(
        resume=options.resume,
        fps=options.fps,
        independent=options.independent,
        seconds=options.seconds,
        stream=options.stream,
        overwrite=options.overwrite,
    )
    if options.runner == "ray":
        return _on_ray(jobs, output, shared, options, detector)
    count = min(options.jobs or 1, len(jobs))
    if count > 1:
        return _in_processes(jobs, shared, options, detector, count)
    return _one_by_one(jobs, shared, options, detector)


def _one_by_one(
    jobs: Sequence[Job], shared: JobOptions, options: ScoreOptions, detector: dict[str, Any]
) -> Generator[Report, None, None]:
    # The detector is made here, not in the generator, so that a bad option is reported at once.
    made = make_detector(detector, options.threads)
    return (run_job(made, job, shared) for job in jobs)


def _in_processes(
    jobs: Sequence[Job],
    shared: JobOptions,
    options: ScoreOptions,
    detector: dict[str, Any],
    count: int,
) -> Generator[Report, None, None]:
    from pyfau.batch.workers import LocalWorkers, share_out

    threads = options.threads
    if threads is None:
        threads = max(1, usable_cores() // count)
    return share_out(LocalWorkers(_maker(detector, threads), shared), jobs, count)


def _on_ray(
    jobs: Sequence[Job],
    output: Path,
    shared: JobOptions,
    options: ScoreOptions,
    detector: dict[str, Any],
) -> Generator[Report, None, None]:
    from pyfau.batch.ray import score_on_ray

    threads = 1 if options.threads is None else options.threads
    gpus = options.gpu_share
    if gpus is None:
        gpus = float(str(detector.get("device", "auto")).startswith("cuda"))
    return score_on_ray(
        _maker(detector, threads),
        jobs,
        shared,
        output,
        count=options.jobs,
        cpus=threads,
        gpus=gpus,
        address=options.ray_address,
    )


def _maker(detector: dict[str, Any], threads: int) -> partial[AUDetector]:
    """What makes the detector of a worker, which shows no progress bar."""
    return partial(make_detector, {**detector, "progress": False}, threads)


def _check_output(output: Path, format_: str | None, inputs: Sequence[str]) -> None:
    """Check that the output is a table for one input, or a folder."""
    from pyfau.media.formats import is_image, is_video

    if format_ is not None:
        check_choice(format_, "format", TableFormat)
    single = is_table(output)
    other_suffix = output.suffix.lower() in _NOT_TABLES and not output.is_dir()
    is_input_name = is_video(output) or is_image(output)
    check_rules(
        (
            single and len(inputs) != 1,
            f"{len(inputs)} inputs need a folder as --output, got the file {output}",
        ),
        (
            other_suffix,
            f"tables are written as .csv, .parquet or .jsonl, got --output {output}",
        ),
        (
            is_input_name and not output.is_dir(),
            f"--output {output} has the suffix of a video or an image: give a table "
            "(.csv, .parquet or .jsonl) or a folder",
        ),
        (
            output.is_file() and not single,
            f"cannot write --output {output}: it is a file, and not a table; give a .csv, .parquet "
            "or .jsonl file, or a folder",
        ),
        (
            single and format_ is not None,
            f"--format is for the tables in a folder; the suffix of --output {output} already "
            "sets the format",
        ),
    )


def _check_inputs(options: ScoreOptions, inputs: Sequence[str]) -> None:
    """Refuse options for which there is no input, instead of ignoring them."""
    from pyfau.files import is_folder

    folders = any(is_folder(text) for text in inputs)
    sequence_options = options.fps is not None or options.independent
    check_rules(
        (
            sequence_options and not folders,
            "--fps and --independent are for folders of images, and no input is one",
        ),
        (
            options.seconds is not None and not _cameras(inputs),
            "--seconds is for a camera, and no input is one",
        ),
    )


def _check_baseline(options: ScoreOptions, detector: Mapping[str, Any]) -> None:
    """Refuse overlays of adjusted scores once, instead of for each input."""
    check_rules(
        (
            options.overlay is not None and detector.get("baseline") is not None,
            "--baseline needs a whole recording, and --overlay is drawn before the end: leave "
            "one of them out, or use pyfau table --baseline afterwards",
        ),
    )


def _check_runner(options: ScoreOptions, output: Path, inputs: Sequence[str]) -> None:
    """Check the options of parallel work and of the cluster."""
    check_choice(options.runner, "runner", Runner)
    ray = options.runner == "ray"
    jobs, gpu_share = options.jobs, options.gpu_share
    parallel = jobs is not None and jobs > 1
    cameras = _cameras(inputs)
    ray_options = gpu_share is not None or options.ray_address is not None
    check_rules(
        (
            jobs is not None and jobs < 1,
            f"--jobs must be at least 1, got {jobs}",
        ),
        (
            bool(cameras) and (ray or parallel),
            f"--jobs and --runner ray are for files; score {' and '.join(cameras)} alone",
        ),
        (
            ray and (is_table(output) or options.format in ("csv", "jsonl")),
            f"--runner ray writes a folder of Parquet files, got --output {output}",
        ),
        (
            ray_options and not ray,
            "--gpu-share and --ray-address are for --runner ray",
        ),
        (
            gpu_share is not None and not 0 <= gpu_share <= _MOST_GPUS,
            f"--gpu-share must be a number of GPUs, such as 1 or 0.5, got {gpu_share}",
        ),
    )


def _check_summary(output: Path | None, jobs: Sequence[Job], overwrite: bool) -> None:
    """Refuse a bad file of features before any work is done."""
    from pyfau.analysis.features import check_features, find_tables

    if output is None:
        return
    check_features(output, overwrite)
    tables = [job.table for job in jobs]
    check_rules(
        (
            real_path(output) in [real_path(table) for table in tables],
            f"--summary {output} is also the table of an input",
        ),
    )
    find_tables(tables, output)


def _cameras(inputs: Sequence[str]) -> list[str]:
    return [text for text in inputs if text.startswith(CAMERA)]
