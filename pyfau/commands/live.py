"""`pyfau live [CAMERA or FILE]`: a window with the overlay, the frame rate and the latency."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pyfau.commands.options import add_detector_options, make_detector


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    live = commands.add_parser(
        "live",
        help="show a camera or a video with its overlay as it is scored",
        description="Show a camera or a video in a window as it is scored. q, Esc, Ctrl-C or closing the window ends; "
        "a shows all action units or the active ones. Of a camera, frames that come while one is scored are dropped "
        "and counted; of a video none is dropped, and it plays at its own rate or, if that is too fast, slower.",
    )
    live.add_argument("source", nargs="?", default="0", metavar="SOURCE", help="camera number or video (default: 0)")
    live.add_argument("--record", type=Path, metavar="TABLE", help="write the rows to a .csv, .parquet or .jsonl file")
    live.add_argument(
        "--record-video", type=Path, metavar="VIDEO",
        help="write what is shown to a .mp4, .mkv or .webm, at its own times: needs pyfau[video]",
    )  # fmt: skip
    live.add_argument("--all-aus", action="store_true", help="begin with all action units, not the active ones alone")
    add_detector_options(live)
    live.set_defaults(run=_live)


def _live(args: argparse.Namespace) -> int:
    from contextlib import ExitStack, closing

    from pyfau.encoders import require_pyav
    from pyfau.errors import OptionError
    from pyfau.jobs import CAMERA, expand
    from pyfau.live import NewestFrames, Window, paced, play
    from pyfau.overlay import OverlayWriter, check_is_other
    from pyfau.result import open_writer
    from pyfau.video import read_camera, read_video

    sources = expand([args.source])
    if len(sources) != 1:
        raise OptionError(f"pyfau live shows one camera or video, got {len(sources)} with {args.source!r}")
    source = sources[0]
    if args.record_video is not None:
        require_pyav("--record-video")
        if args.record_video.suffix.lower() == ".avi":
            raise OptionError(f"--record-video writes .mp4, .mkv or .webm, got {args.record_video}")
    camera = source.startswith(CAMERA)
    with ExitStack() as stack:
        window = stack.enter_context(closing(Window(f"pyfau: {source}", args.all_aus)))
        detector = make_detector(args)  # before the camera, which would be waiting for it
        reader = stack.enter_context(read_camera(int(source.removeprefix(CAMERA))) if camera else read_video(source))
        for output in (args.record, args.record_video):
            if output is not None and not camera:
                check_is_other(output, source)
        video = table = None
        if args.record_video is not None:
            sound = None if camera else source
            video = stack.enter_context(OverlayWriter(args.record_video, reader.fps or 30.0, source=sound))
        if args.record is not None:
            record = detector.settings() | {"source": reader.name, "fps": reader.fps, "latency_frames": 0}
            table = stack.enter_context(open_writer(args.record, detector.aus, record))
        frames = NewestFrames(reader) if camera else paced(reader)
        played = play(detector, frames, window, table=table, video=video)
    for warning in reader.warnings + (video.warnings if video is not None else []):
        print(f"pyfau: {source}: {warning}", file=sys.stderr)
    dropped = f", {frames.dropped} dropped" if isinstance(frames, NewestFrames) else ""
    said = f"{played.frames} frame{'' if played.frames == 1 else 's'} shown"
    if played.frames > 1:
        said += f" at {played.fps:.1f} frames/s"
    said += dropped
    if played.frames:
        mean, worst = 1000 * played.latency_s, 1000 * played.worst_latency_s
        said += f"; latency {mean:.0f} ms on average, {worst:.0f} ms at most"
    print(f"{source}: {said}")
    for path in (args.record, args.record_video):
        if path is not None:
            print(path)
    return 0
