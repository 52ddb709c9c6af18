"""Read rosbag2 (MCAP or sqlite3): raw messages, stamped arrays, whole dual-pixel sets and sweeps.

    with BagReader(path) as bag:
        for record in bag.frames():          # DualPixelRecord: arrays joined by stamp
            ...
        for record in bag.sweeps():          # SweepRecord: the slices of one focus sweep
            ...
        for raw in bag.raw():                # RawMessage: serialised, for a player
            ...

A missing, truncated or damaged bag raises BagError, when opened or at the message where reading
stops; nothing is skipped silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rosbags.interfaces import Connection, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_idl, get_types_from_msg

from . import topics as names
from .images import stamp_ns
from .records import DualPixelRecord, StampedArray, SweepRecord, stamped_array
from .sweep_records import sweep_records, sweep_stamps
from .typestore import BagError, bag_typestore

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BagReader",
    "DualPixelRecord",
    "RawMessage",
    "StampedArray",
    "SweepRecord",
    "TopicSummary",
]


@dataclass(frozen=True)
class TopicSummary:
    """A recorded topic: absolute name, message type, number of messages, recorded QoS or None."""

    name: str
    type_name: str
    message_count: int
    qos: Qos | None


@dataclass(frozen=True)
class RawMessage:
    """A serialised (CDR with its 4-byte header) message as recorded; log time in nanoseconds."""

    topic: str
    type_name: str
    log_time_ns: int
    data: bytes


_SLOT_OF_TOPIC = {
    names.LEFT_IMAGE: "left",
    names.RIGHT_IMAGE: "right",
    names.RGB_IMAGE: "rgb",
    names.TRUTH_DEPTH: "truth",
    names.DP_CAMERA_INFO: "dp_camera_info",
    names.RGB_CAMERA_INFO: "rgb_camera_info",
    names.LENS_STATE: "lens_state",
}


class BagReader:
    """Reader of one bag (a folder with metadata.yaml, or a single .mcap or .db3 file).

    Raises:
        BagError: the bag is missing, or (on entering the `with` block) truncated or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with self._clear_errors():
            self._reader = Reader(self.path)

    def __enter__(self) -> Self:
        with self._clear_errors():
            self._reader.open()
            self._register_recorded_types()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> tuple[TopicSummary, ...]:
        """Recorded topics, sorted by name."""
        summaries = []
        for connection in self._reader.connections:
            profiles = getattr(connection.ext, "offered_qos_profiles", None) or [None]
            summaries.append(
                TopicSummary(connection.topic, connection.msgtype, connection.msgcount, profiles[0])
            )
        return tuple(sorted(summaries, key=lambda s: s.name))

    @property
    def metadata(self) -> dict[str, str]:
        """Custom data of the bag (seed, camera, …); empty if there is none."""
        return dict(self._reader.storage.metadata.custom or {})

    @property
    def message_count(self) -> int:
        """Number of messages of all topics."""
        return int(self._reader.message_count)

    @property
    def start_ns(self) -> int:
        """Log time of the earliest message, nanoseconds."""
        return int(self._reader.start_time)

    @property
    def duration_s(self) -> float:
        """Seconds between the earliest and the latest message."""
        return max(int(self._reader.duration) - 1, 0) / 1e9

    def raw(self, topics: Collection[str] = ()) -> Iterator[RawMessage]:
        """Yield serialised messages in log-time order; `topics` (absolute) empty = all."""
        chosen = self._connections(topics)
        if not chosen:
            return
        with self._clear_errors():
            for connection, time_ns, data in self._reader.messages(chosen):
                yield RawMessage(connection.topic, connection.msgtype, time_ns, bytes(data))

    def messages(self, topics: Collection[str] = ()) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, log time in ns, message object) in log-time order."""
        store = bag_typestore()
        for raw in self.raw(topics):
            with self._clear_errors():
                message = store.deserialize_cdr(raw.data, raw.type_name)
            yield raw.topic, raw.log_time_ns, message

    def images(self, topic: str) -> Iterator[StampedArray]:
        """Yield the images of one absolute topic as arrays.

        Raises:
            BagError: the topic is not in the bag, is no sensor_msgs/Image, or an image is damaged.
        """
        types = {s.name: s.type_name for s in self.topics}
        if types.get(topic) != "sensor_msgs/msg/Image":
            raise BagError(
                f"bag {self.path}: topic {topic} is {types.get(topic, 'not recorded')}, needs "
                f"sensor_msgs/msg/Image; recorded are {', '.join(types) or 'no topics'}"
            )
        for _, _, message in self.messages([topic]):
            yield stamped_array(message)

    def frames(self, namespace: str = names.DEFAULT_NAMESPACE) -> Iterator[DualPixelRecord]:
        """Yield sets joined by exact stamp, in order of their first message.

        A set is given out when all its topics that the bag records have come, or at the end of
        the bag (then incomplete: see `DualPixelRecord.is_complete`).
        """
        slots = {names.resolve(namespace, t): slot for t, slot in _SLOT_OF_TOPIC.items()}
        recorded = {s.name for s in self.topics if s.message_count} & set(slots)
        waiting: dict[int, DualPixelRecord] = {}
        for topic, _, message in self.messages(sorted(recorded)):
            stamp = stamp_ns(message)
            record = waiting.setdefault(stamp, DualPixelRecord(stamp))
            is_image = slots[topic] in ("left", "right", "rgb", "truth")
            setattr(record, slots[topic], stamped_array(message) if is_image else message)
            if all(getattr(record, slots[t]) is not None for t in recorded):
                yield waiting.pop(stamp)
        yield from waiting.values()

    def sweeps(self, namespace: str = names.DEFAULT_NAMESPACE) -> Iterator[SweepRecord]:
        """Yield focus sweeps, joined by their tags (LensState.sweep_id) and by exact stamp.

        A sweep is given out when all its slices (and its truth, in a bag that records truth) have
        come, or at the end of the bag (then incomplete: see `SweepRecord.is_complete`). An image
        without a tagged lens state is in no sweep.

        Raises:
            BagError: no lens state in the bag belongs to a sweep.
        """
        return sweep_records(self, namespace)

    def sweep_stamps(self, namespace: str = names.DEFAULT_NAMESPACE) -> list[tuple[int, ...]]:
        """Return the stamps (ns) of the slices of each sweep; decodes no image. Errors as above."""
        return sweep_stamps(self, namespace)

    def _connections(self, topics: Collection[str]) -> list[Connection]:
        return [c for c in self._reader.connections if not topics or c.topic in topics]

    def _register_recorded_types(self) -> None:
        """Learn types that only the bag itself defines (foreign messages of a robot)."""
        store = bag_typestore()
        for connection in self._reader.connections:
            if connection.msgtype in store.fielddefs:
                continue
            text, form = connection.msgdef.data, connection.msgdef.format
            if form == MessageDefinitionFormat.MSG:
                found = get_types_from_msg(text, connection.msgtype)
            elif form == MessageDefinitionFormat.IDL:
                found = get_types_from_idl(text)
            else:
                continue
            store.register({k: v for k, v in found.items() if k not in store.fielddefs})

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn whatever the storage layers raise into one sentence that names the bag."""
        try:
            yield
        except (BagError, GeneratorExit, KeyboardInterrupt, MemoryError):
            raise
        except FileNotFoundError as error:
            raise BagError(
                f"bag {self.path}: {str(error).rstrip('.')}; give the folder that holds "
                "metadata.yaml, or a .mcap or .db3 file (a recording that was cut off has no "
                "metadata.yaml: run 'ros2 bag reindex')"
            ) from None
        except Exception as error:  # sqlite3, zstd, struct, YAML … each with a class of its own
            raise BagError(
                f"bag {self.path}: cannot be read, it is truncated, damaged or no rosbag2 "
                f"({type(error).__name__}: {error}); copy or record it again"
            ) from error
