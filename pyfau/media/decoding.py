"""Decodes video files with PyAV: every frame that can be decoded, upright, with its own time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.filter import Graph
from av.stream import Disposition

from pyfau.errors import MediaError, OptionError
from pyfau.media.clock import Clock, Stamp
from pyfau.media.colour import RGBConverter
from pyfau.media.damage import (
    HIDING_CODECS,
    count_damaged_gif_images,
    damaged_matroska_parts,
    is_damaged_packet,
)
from pyfau.media.endings import has_fragment, lost_at_ts_end
from pyfau.media.formats import CONTAINERS, check_pixels, open_container
from pyfau.media.frames import Frames
from pyfau.media.limits import Limits
from pyfau.media.upright import make_upright, square_size, turn_of, turn_planes
from pyfau.planes import Planes
from pyfau.types import Frame, UInt8Array

# Packets are read some time before they are decoded, for the clock: see `pyfau.media.clock`.
_AHEAD_PACKETS = 24
_AHEAD_BYTES = 8 << 20
# After damage, decoders return a few frames in the wrong order. To sort the frames, this number of
# them is kept back if their time stamps differ by less than this number of seconds.
_HELD_FRAMES = 2
_SORTED_SECONDS = 2.0
# A damaged container can have good packets after an error. Reading ends after this number of
# consecutive errors.
_MAX_READ_ERRORS = 32
# A decoder returns a frame at most this number of packets after its own.
_MOST_DELAY = 128
# Bytes of the stored packets since the last key frame, and number of frames that may be lost at the
# end, because a decoder with several threads keeps this number of frames.
_RECENT_BYTES = 32 << 20
_MAX_RESCUED = 32
# Dolby Vision without a base layer for other players (profile 5) has these tags.
_DOLBY_TAGS = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
_UNSPECIFIED = 2
_BLANK = av.VideoFrame(2, 2, "gray")
# These containers have one length for all streams, which FFmpeg copies to each.
_SHARED_LENGTH = ("asf",)
# In these containers, FFmpeg and mkvmerge state exactly where the last frame ends.
_EXACT_LENGTH, _EXACT_WRITERS = ("matroska,webm", "flv", "asf"), ("Lavf", "libebml")
# Without this flag, this decoder drops all frames between a lost frame and the next key frame, also
# those that are nearly right. With it, it also returns frames before the first key frame.
_KEEP_DAMAGED, _DROPS_DAMAGED = {"flags": "+output_corrupt"}, "hevc"
# With this option, this decoder refuses damaged images. Without it, it reports no damage.
_STRICT, _HIDES_ERRORS = {"err_detect": "explode"}, "mjpeg"
# Bytes after the last packet of an FLV file that can be its end. More are another recording.
_FLV_END_BYTES = 1024
# After a damaged place, FFmpeg treats the rest of a GIF as one image. An image has at most 1.5
# bytes per pixel, plus its palettes and comments.
_GIF_EXTRA_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class _Place:
    """What is stored about a frame while filters work on it."""

    stamp: Stamp
    pixel_aspect: Fraction | None
    turn: tuple[int, int, int, int]


class VideoDecoder:
    """One video stream of a file.

    Args:
        path: The file. It must exist.
        number: Number of the video stream, from 0; None for the default stream.
        limits: Larger files and frames are refused.
        threads: Number of decoding threads. Each keeps its own frames in memory.
        containers: Names of the containers that may be opened.
        planar: Whether frames may be `Planes`.

    Attributes:
        fps: Frames per second; the average if the rate varies; None if unknown.
        frame_count: Estimate of the number of frames, None if unknown.
        warnings: Descriptions of the problems of the file; complete after the last frame.
        clock: Its attribute `holes` lists the missing frames.

    Raises:
        MediaError: The file is not a video in a format that pyfau reads, or is too large.
        OptionError: There is no stream of this number.
    """

    def __init__(
        self,
        path: Path,
        number: int | None,
        limits: Limits,
        threads: int,
        containers: Sequence[str] = CONTAINERS,
        planar: bool = False,
    ) -> None:
        self.warnings: list[str] = []
        self._limits = limits
        self._planar = planar
        self._converter = RGBConverter()
        self._container = open_container(path, limits, containers)
        try:
            self._stream = self._choose(number)
            self._check_size(path)
        except BaseException:
            self._container.close()
            raise
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = threads
        context.options = {"max_pixels": str(limits.frame_pixels)}
        self._is_started = context.name != _DROPS_DAMAGED
        if not self._is_started:
            context.options |= _KEEP_DAMAGED
        self._tolerant: Any = None
        if context.name == _HIDES_ERRORS:
            self._tolerant = _copy_of(context)
            context.options |= _STRICT
        self._first_aspect = context.sample_aspect_ratio
        self.fps = _positive(self._stream.guessed_rate) or _positive(self._stream.average_rate)
        self.frame_count = self._announced()
        start = self._container.start_time
        self.clock = Clock(self.fps, 0.0 if start is None else start / av.time_base)
        # AVI counts its packets; FFmpeg only guesses when their frames are shown.
        self._by_order = self._container.format.name == "avi"
        # MXF files without the table of the order of images have the same stamp for both orders.
        self._may_lack_order = self._container.format.name == "mxf"
        self._base: Fraction | None = self._stream.time_base
        self._bases: dict[int, Fraction] = {}  # units of the time stamps of each stream
        self._fed: deque[int] = deque(maxlen=_MOST_DELAY)  # stamps of the last decoded packets
        self._last_dts: int | None = None
        self._next_dts: int | None = None  # of the next packet, if none is missing
        self._delay: int | None = None  # number of packets between a packet and its frame
        self._most_gif_bytes = 2 * context.width * context.height + _GIF_EXTRA_BYTES
        self._swallowed = False
        self._seen = 0
        self._corrupt = 0
        self._packet_count = self._damaged_packets = self._refused_packets = 0
        self._errors = 0
        self._path = path
        # Times and positions of the packets of all streams, since the start of the file.
        self._begin_s, self._end_s = math.inf, -math.inf
        self._begin_byte, self._end_byte = math.inf, 1
        self._last_byte: int | None = None  # start of the last packet of this stream

    def frames(self) -> Frames:
        """Decode the frames. Their `index` and `time_s` only increase."""
        try:
            for image, place in _Deinterlacer().filtered(self._placed()):
                yield Frame(place.stamp.index, place.stamp.time_s, self._upright(image, place))
            self.clock.finish(self._exact_end_s(), self._slack())
            self._sum_up()
        finally:
            self._container.close()

    def _upright(self, image: Any, place: _Place) -> UInt8Array | Planes:
        """The upright planes of a frame if they are wanted; else its upright RGB image."""
        size = (image.width, image.height)
        if self._planar and square_size(size, place.pixel_aspect) == size:
            planes = self._converter.planes(image)
            if planes is not None:
                return turn_planes(planes, place.turn)
        return make_upright(self._converter.convert(image), place.pixel_aspect, place.turn)

    def _choose(self, number: int | None) -> Any:
        streams = [
            stream
            for stream in self._container.streams.video
            if stream.codec_context is not None
            and not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            if self._container.streams.video:
                raise MediaError("its video has a codec that pyfau does not decode, or is a cover")
            raise MediaError("not a video file: it has no video stream")
        if number is None:
            return self._choose_default(streams)
        if number >= len(streams):
            raise OptionError(
                f"stream: expected less than {len(streams)}, the number of video streams, "
                f"got {number}"
            )
        return streams[number]

    def _choose_default(self, streams: list[Any]) -> Any:
        marked = [stream for stream in streams if stream.disposition & Disposition.default]
        chosen = (marked or streams)[0]
        if len(streams) > 1:
            which = "the default" if marked else "the first"
            self.warnings.append(
                f"the file holds {len(streams)} video streams; number {streams.index(chosen)} "
                f"is read, {which} (stream=... selects another)"
            )
        return chosen

    def _check_size(self, path: Path) -> None:
        context = self._stream.codec_context
        size = square_size((context.width, context.height), self._stream.sample_aspect_ratio)
        check_pixels(size, self._limits.frame_pixels, "a frame of the video")
        if self._container.format.name == "gif":
            self._check_animation(path, context.width * context.height)

    def _check_animation(self, path: Path, pixels: int) -> None:
        """Count the images of a GIF, because a blank image takes only a few bytes."""
        most = min(self._limits.animation_frames, self._limits.animation_pixels // max(1, pixels))
        with open_container(path, self._limits) as container:
            count = 0
            try:
                for _ in container.demux(video=0):
                    count += 1
                    if count > most + 1:  # the last packet is empty
                        break
            except av.FFmpegError:
                return  # the images until here are few
        if count > most + 1:
            raise MediaError(
                f"an animation of more than {most} images with {pixels} pixels: "
                "raise the limits to read it"
            )

    def _announced(self) -> int | None:
        """The number of frames that the file announces."""
        count = self._stream.frames
        edited = "mov" in self._container.format.name  # may include frames that are cut off
        if count > 0 and not edited:
            return int(count)
        length = self._length_s() or 0.0
        # Most containers count from 0, where the video may not have begun yet.
        start = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        if 0 < start < length:
            length -= start
        by_time = math.floor(length * self.fps + 0.5) if length and self.fps else 0
        known = [number for number in (count, by_time) if number > 0]
        return min(known) if known else None

    def _length_s(self) -> float | None:
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration:
            return float(self._container.duration / av.time_base)
        return None

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream. The clock gets their time stamps before they are decoded."""
        waiting: deque[Any] = deque()
        held = 0
        for packet in self._read():
            if packet.size:
                self._note_place(packet)
            # The empty packet at the end of a stream has no number of its own.
            number = packet.stream_index if packet.size else packet.stream.index
            if number != self._stream.index:
                continue
            if packet.size:
                self._check_packet(packet)
                self._announce(packet)
            waiting.append(packet)
            held += packet.size
            while len(waiting) > _AHEAD_PACKETS or (len(waiting) > 1 and held > _AHEAD_BYTES):
                held -= waiting[0].size
                yield waiting.popleft()
        self.clock.is_read = True
        yield from waiting

    def _base_of(self, packet: Any) -> Fraction:
        """The unit of the time stamps of a packet. PyAV makes a new object for each request."""
        number = packet.stream_index
        if number not in self._bases:
            self._bases[number] = packet.time_base or Fraction(0)
        return self._bases[number]

    def _note_place(self, packet: Any) -> None:
        """Store where the packets of all streams begin and end."""
        if packet.pos is not None:
            self._begin_byte = min(self._begin_byte, packet.pos)
            if packet.stream_index == self._stream.index:
                self._last_byte = packet.pos
            self._end_byte = max(self._end_byte, packet.pos + packet.size)
        stamp = packet.dts if packet.pts is None else packet.pts
        base = self._base_of(packet)
        if stamp is not None and base:
            begin = _to_seconds(stamp, base) - self.clock.start_s
            self._begin_s = min(self._begin_s, begin)
            self._end_s = max(self._end_s, begin + _to_seconds(packet.duration or 0, base))

    def _check_packet(self, packet: Any) -> None:
        """Look for damage that the decoder does not report."""
        context = self._stream.codec_context
        self._packet_count += 1
        if context.name in HIDING_CODECS:
            pixels = context.width * context.height
            self._damaged_packets += is_damaged_packet(context.name, bytes(packet), pixels)

    def _announce(self, packet: Any) -> None:
        base = self._base_of(packet)
        if self._container.format.name == "gif" and packet.size > self._most_gif_bytes:
            self._swallowed = True
        stamp = packet.dts if self._by_order else packet.pts
        self._may_lack_order &= packet.pts == packet.dts
        if packet.is_discard:
            if stamp is not None:
                self.clock.announce_cut(_to_seconds(stamp, base))
            return
        if packet.dts is not None:
            self._last_dts = packet.dts
        # Also set where a stream was joined from parts, so it is no damage by itself.
        if packet.is_corrupt:
            self.clock.errors += 1
        self.clock.announce(
            None if stamp is None else _to_seconds(stamp, base),
            _to_seconds(packet.duration, base) if packet.duration else None,
            follows=self._follows(packet),
        )

    def _follows(self, packet: Any) -> bool:
        """Whether an MP4 file states that nothing is missing between two packets.

        Its tables list all frames, so only fragments can be missing.
        """
        expected, self._next_dts = self._next_dts, None
        if "mov" not in self._container.format.name or packet.dts is None or not packet.duration:
            return False
        self._next_dts = packet.dts + packet.duration
        return expected is not None and packet.dts <= expected

    def _read(self) -> Iterator[Any]:
        """Packets of images and sound, also after errors of the container; the last one is empty.

        Sound shows where the file ends, because the video may end earlier.
        """
        errors = 0
        streams = self._container.streams
        while True:
            try:
                for packet in self._container.demux(*streams.video, *streams.audio):
                    errors = 0
                    yield packet
                return
            except (av.FFmpegError, OSError):
                self._count_error()
                errors += 1
                if errors > _MAX_READ_ERRORS:
                    break
        flush = av.Packet()
        flush.stream = self._stream
        yield flush

    def _count_error(self) -> None:
        self._errors += 1
        self.clock.errors += 1

    def _decoded(self) -> Iterator[Any]:
        """Frames as the decoder returns them. Decoding continues after a packet that it refuses."""
        recent = _Recent()
        last: int | None = None
        for packet in self._packets():
            recent.add(packet)
            if packet.size and packet.dts is not None:
                self._fed.append(packet.dts)
            try:
                frames = self._stream.decode(packet)
            except av.error.EOFError:
                continue
            except (av.FFmpegError, ValueError):
                frames = self._decode_again(packet)
            self._count_unshown(packet, len(frames))
            if not packet.size:
                frames = recent.complete(frames, self._stream, last)
            for frame in frames:
                self._is_started |= not frame.is_corrupt
                if not self._is_started:
                    continue
                self._corrupt += bool(frame.is_corrupt)
                self.clock.damaged = self._corrupt
                last = frame.pts if last is None else max(last, frame.pts or last)
                yield frame

    def _decode_again(self, packet: Any) -> list[Any]:
        """The frames of a packet that the decoder refused."""
        frames = [] if self._tolerant is None else _decode(self._tolerant, packet)
        if frames:
            self._refused_packets += 1
        else:
            self._count_error()
        return frames

    def _count_unshown(self, packet: Any, frames: int) -> None:
        """Count the packets since the last frame."""
        if not packet.size:  # the end, where the decoder returns the frames that it kept
            self.clock.unshown = max(0, self.clock.unshown - frames)
        elif frames:
            self.clock.unshown = 0
        elif not packet.is_discard:
            self.clock.unshown += 1

    def _ordered(self) -> Iterator[tuple[Any, float | None]]:
        """Frames with their time stamps in seconds, sorted if damage changed their order."""
        held: list[tuple[Any, float | None]] = []
        last = -math.inf
        for frame in self._decoded():
            stamp = self._stamp(frame)
            keep = _HELD_FRAMES if self.clock.errors else 0
            place = len(held) if stamp is None else _place_among(held, stamp, last)
            held.insert(place, (frame, stamp))
            while len(held) > keep:
                last = held[0][1] or last
                yield held.pop(0)
        yield from held

    def _stamp(self, frame: Any) -> float | None:
        """The time stamp of a frame in seconds."""
        base = self._base
        if not base:
            return None
        if self._may_lack_order and not self._seen:
            self._by_order = self._stream.codec_context.has_b_frames
        if not self._by_order:
            return None if frame.pts is None else _to_seconds(frame.pts, base)
        if frame.dts not in self._fed:  # one of the last frames
            return self.clock.next_announced()
        place = self._fed.index(frame.dts)
        if self._delay is None:
            self._delay = place
        return _to_seconds(self._fed[max(0, place - self._delay)], base)

    def _placed(self) -> Iterator[tuple[Any, _Place]]:
        for frame, seconds in self._ordered():
            stamp = self.clock.place(seconds)
            if not self._seen:
                self._check_first(frame)
            self._seen += 1
            yield frame, _Place(stamp, self._pixel_aspect(), turn_of(_display_matrix(frame)))

    def _pixel_aspect(self) -> Fraction | None:
        """The pixel shape from the container, or from the images if it changes in the stream.

        Broadcasters switch between 4:3 and 16:9.
        """
        coded: Fraction | None = self._stream.codec_context.sample_aspect_ratio
        if coded and coded != self._first_aspect:
            return coded
        aspect: Fraction | None = self._stream.sample_aspect_ratio
        return aspect

    def _check_first(self, frame: Any) -> None:
        dolby = self._stream.codec_context.codec_tag in _DOLBY_TAGS
        if dolby and int(frame.color_trc) == _UNSPECIFIED:
            raise MediaError(
                "Dolby Vision of profile 5, whose colours only a Dolby decoder restores: "
                "convert it to HDR10, HLG or SDR first"
            )

    def _sum_up(self) -> None:
        truncated = self._truncation()
        said = self.clock.warnings(with_end=truncated is None)
        if self._errors and not (truncated and not said):  # a cut file explains these errors
            said.append(f"the file is damaged: FFmpeg reported {self._errors} errors")
        if self._corrupt:
            said.append(f"{self._corrupt} frames are damaged in part; the decoder filled them in")
        if truncated:
            said.append(truncated)
        said += self._hidden_damage()
        said += self._damaged_end()
        self.warnings += said

    def _truncation(self) -> str | None:
        if self._swallowed:
            return f"the file is damaged after {self._seen} frames; the images there are missing"
        announced = self.frame_count
        if announced is None:
            return None
        slack = self._slack()
        if self._lost_of_avi():
            slack = 0.5
        elif self._reaches_its_end(slack):
            return None
        if announced - self._reached() <= slack:
            return None
        return f"the file announces {announced} frames, but holds {self._seen}: it may be truncated"

    def _slack(self) -> float:
        """Number of frames that may be missing in a file that is not cut off."""
        return max(4.0, 0.02 * (self.frame_count or 0))

    def _exact_end_s(self) -> float | None:
        """The time stamp at which the last frame ends, if the file states it; else None."""
        if self._container.format.name not in _EXACT_LENGTH:
            return None
        metadata = self._container.metadata
        writer = metadata.get("ENCODER") or metadata.get("encoder") or ""
        if not writer.startswith(_EXACT_WRITERS):
            return None
        stated = _seconds(self._stream.metadata.get("DURATION", ""))
        if stated:
            return stated
        if len(self._container.streams) == 1 and self._container.duration:
            return float(self._container.duration / av.time_base)
        return None

    def _reached(self) -> float:
        """The number of frames up to the last one.

        It uses numbers and times. If the rate varies, the announced number may be wrong.
        """
        index = self.clock.count
        if not self.fps or not index:
            return index
        return max(index, (self.clock.time_s - self.clock.first_s) * self.fps + 1)

    def _lost_of_avi(self) -> bool:
        """Whether packets are missing in an AVI file, which states their exact number."""
        if not self._by_order or not self._stream.frames or self._last_dts is None:
            return False
        return bool(self._last_dts + 1 < self._stream.frames)

    def _reaches_its_end(self, slack: float) -> bool:
        """Whether the packets of all streams reach the duration that the file announces."""
        shared = self._container.format.name in _SHARED_LENGTH or not self._stream.duration
        length = self._length_s()
        if not shared or not length or not self.fps:
            return False
        tolerance = slack / self.fps
        # Some containers count from the first time stamp, others from 0.
        start = self.clock.start_s if 0 < self.clock.start_s < length else 0.0
        # After a late start, the beginning is lost if the file has bytes for it.
        has_bytes = self._begin_byte / self._end_byte > 0.5 * start / length
        if start > tolerance and has_bytes:
            return False
        return self._begin_s <= tolerance and self._end_s + start >= length - tolerance

    def _hidden_damage(self) -> list[str]:
        """What is wrong in the file that the decoder did not report, in words."""
        said = []
        name = self._container.format.name
        # If it is in most packets, it is a habit of the recorder.
        damaged = max(self._damaged_packets, self._refused_packets)
        if 0 < damaged <= self._packet_count / 2:
            said.append(f"the data of {damaged} frames are damaged; the images there may be wrong")
        if name == "gif":
            count = count_damaged_gif_images(self._path)
            if count:
                said.append(f"{count} images are damaged; parts of them are missing")
        if name.startswith("matroska"):
            said += _wrong_parts(self._path, self.clock.start_s)
        return said

    def _damaged_end(self) -> list[str]:
        """What is wrong after the last packet that FFmpeg found, in words."""
        name = self._container.format.name
        lost = 0
        fragments = False
        try:
            if "mov" in name:
                fragments = has_fragment(self._path, self._end_byte)
            if name == "mpegts" and self._last_byte is not None:
                lost = lost_at_ts_end(self._path, self._last_byte)
            if name == "flv":
                lost = max(0, self._path.stat().st_size - self._end_byte - _FLV_END_BYTES)
        except OSError:  # removed since it was opened
            return []
        last_s = self.clock.time_s
        if fragments:
            return [
                f"the file is damaged after {last_s:.3f} s: "
                "the fragments there cannot be read, and their frames are missing"
            ]
        if lost:
            return [
                f"the file is damaged after {last_s:.3f} s: "
                f"{lost} bytes there are no video, so frames may be missing"
            ]
        return []


class _Recent:
    """The packets since the last key frame.

    With several threads, the decoder reports errors late. After an error at the end of the stream,
    PyAV or FFmpeg drops the frames that are still in the decoder. So the last packets are decoded
    again in one thread.
    """

    def __init__(self) -> None:
        self._packets: list[Any] = []
        self._bytes = 0

    def add(self, packet: Any) -> None:
        """Store a packet that goes to the decoder."""
        if packet.is_keyframe or self._bytes > _RECENT_BYTES:
            self._packets, self._bytes = [], 0
        if packet.size:
            self._packets.append(packet)
            self._bytes += packet.size

    def complete(self, frames: list[Any], stream: Any, last: int | None) -> list[Any]:
        """The last frames of the decoder, and the frames that it dropped.

        Args:
            frames: The frames that the decoder returned at the end of the stream.
            stream: The stream.
            last: The latest time stamp before these frames.
        """
        stamps = [frame.pts for frame in frames if frame.pts is not None]
        if last is not None:
            stamps.append(last)
        latest = max(stamps, default=None)
        if frames and latest is None:  # a file without time stamps
            return frames
        shown = [packet for packet in self._packets if not packet.is_discard]
        coming = [packet.pts for packet in shown if packet.pts is not None]
        if latest is not None and max(coming, default=latest) <= latest:
            return frames
        return [*frames, *self.decode_again(stream, latest)]

    def decode_again(self, stream: Any, last: int | None) -> list[Any]:
        """The frames with a time stamp after `last`."""
        context = _copy_of(stream.codec_context)
        kept: list[Any] = []
        for packet in [*self._packets, None]:
            frames = _decode(context, packet)
            kept += [f for f in frames if f.pts is not None and (last is None or f.pts > last)]
            del kept[:-_MAX_RESCUED]
        return kept


class _Deinterlacer:
    """Deinterlaces frames. The number of frames does not change.

    From the first interlaced frame on, all frames pass through the filter. The filter does not
    change frames that are not interlaced.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._key: tuple[Any, ...] = ()
        self._places: deque[_Place] = deque()

    def filtered(self, frames: Iterator[tuple[Any, _Place]]) -> Iterator[tuple[Any, _Place]]:
        """Frames as they come, or deinterlaced."""
        for frame, place in frames:
            key = (frame.width, frame.height, frame.format.name)
            if self._graph is not None and key != self._key:
                yield from self._flush()
            if self._graph is None and frame.interlaced_frame:
                self._graph, self._key = _deinterlace_graph(frame), key
            if self._graph is None:
                yield frame, place
                continue
            # The filter needs times that increase; the real times are in `_places`.
            frame.pts = place.stamp.index
            frame.time_base = Fraction(1, 25)
            self._places.append(place)
            self._graph.vpush(frame)
            yield from self._pull()
        yield from self._flush()

    def _flush(self) -> Iterator[tuple[Any, _Place]]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
        self._graph = None
        self._places.clear()

    def _pull(self) -> Iterator[tuple[Any, _Place]]:
        assert self._graph is not None
        while self._places:
            try:
                image = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            yield image, self._places.popleft()


def _deinterlace_graph(frame: Any) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=Fraction(1, 25),
    )
    # One output frame for each input frame; only frames that are marked as interlaced are changed.
    lines = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    graph.link_nodes(source, lines, sink)
    graph.configure()
    return graph


def _copy_of(context: Any) -> Any:
    """A decoder for the same stream, with one thread."""
    copy = av.CodecContext.create(context.name, "r")
    copy.extradata = context.extradata
    copy.options = dict(context.options)
    copy.thread_count = 1
    return copy


def _decode(context: Any, packet: Any) -> list[Any]:
    """The frames for a packet; none if the decoder refuses it."""
    try:
        return list(context.decode(packet))
    except (av.FFmpegError, ValueError):
        return []


def _wrong_parts(path: Path, start_s: float) -> list[str]:
    """The parts of a Matroska file whose checksum is wrong, in words."""
    try:
        spans = damaged_matroska_parts(path)
    except OSError:  # removed since it was opened
        return []
    if not spans:
        return []
    first, last = spans[0], spans[-1]
    end = "the end" if math.isinf(last.end_s) else f"{last.end_s - start_s:.3f} s"
    where = f"from {first.start_s - start_s:.3f} s to {end}"
    if len(spans) > 1:
        where = f"in {len(spans)} parts {where}"
    return [f"the file has wrong checksums {where}: frames there may be wrong"]


def _place_among(held: list[tuple[Any, float | None]], stamp: float, last: float) -> int:
    """The position of a frame among the frames that are kept back."""
    place = len(held)
    if stamp <= last:
        return place
    while place:
        before = held[place - 1][1]
        if before is None or not stamp < before < stamp + _SORTED_SECONDS:
            break
        place -= 1
    return place


def _display_matrix(frame: Any) -> bytes | None:
    side_data = frame.side_data
    matrices = [bytes(item) for item in side_data if item.type.name == "DISPLAYMATRIX"]
    # In PyAV, a frame and its side data refer to each other, so the frame would stay in memory
    # until Python collects garbage. FFmpeg would then need new memory for every frame, which takes
    # longer than the decoding of a large frame. After this call, the side data refer to another
    # frame.
    type(side_data).__init__(side_data, _BLANK)
    return matrices[0] if matrices else None


def _to_seconds(stamp: int, base: Fraction) -> float:
    """A time stamp in seconds: `float(stamp * base)` without the cost of a fraction."""
    return float(stamp * base.numerator / base.denominator)


def _seconds(text: str) -> float | None:
    """Seconds of a time such as 00:01:02.500; None for other text."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def _positive(rate: Fraction | None) -> float | None:
    value = 0.0 if rate is None else float(rate)
    return value if math.isfinite(value) and value > 0 else None
