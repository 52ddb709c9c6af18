"""A rosbag2 folder that is being written, whatever it holds (MCAP by default, sqlite3 on request).

    with BagWriter(path, metadata={"seed": "0"}) as bag:
        bag.write_message("lens_state", "depth_fusion_ros/msg/LensState", message, stamp_ns)

The file is complete only after a clean exit from the `with` block: after an exception the folder
has no metadata.yaml and readers refuse it. Writers of whole sets: `writer.py`, `sweep_writer.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from . import topics as names
from .images import image_message
from .messages import static_transform
from .typestore import BagError, bag_typestore

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_START_NS = 1_000_000_000 * 1_000_000_000
"""Stamp of the first frame: fixed, so that the same seed gives the same bag (September 2001)."""


class BagWriter:
    """Writer of one bag; use as a context manager.

    Args:
        path: folder to create; must not exist unless `overwrite`.
        namespace: of all relative topics.
        frame_id: optical frame of all images.
        storage: "mcap" or "sqlite3".
        metadata: custom data of the bag (strings), e.g. seed and camera.
        start_ns: suggested stamp of the first frame, kept for the caller.
        overwrite: remove an existing *bag* at `path` first; anything else there is left alone.

    Raises:
        BagError: the path is taken, or the storage is unknown.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        namespace: str = names.DEFAULT_NAMESPACE,
        frame_id: str = names.DEFAULT_FRAME_ID,
        storage: str = "mcap",
        metadata: Mapping[str, str] | None = None,
        start_ns: int = DEFAULT_START_NS,
        overwrite: bool = False,
    ) -> None:
        plugins = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
        if storage not in plugins:
            raise BagError(f"bag storage {storage!r}: must be one of {', '.join(plugins)}")
        self.path = Path(path)
        self.namespace = namespace
        self.frame_id = frame_id
        self.start_ns = start_ns
        if overwrite:
            remove_bag(self.path)
        try:
            self._writer = Writer(self.path, version=9, storage_plugin=plugins[storage])
            for key, value in (metadata or {}).items():
                self._writer.set_custom_data(key, value)
        except WriterError as error:
            raise BagError(
                f"bag {self.path}: {error}; choose another path or remove it first"
            ) from None
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Self:
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add_metadata(self, key: str, value: str) -> None:
        """Add custom data that is known only after some frames; call before the block ends."""
        self._writer.set_custom_data(key, value)

    def write_static_transform(self, stamp_ns: int) -> None:
        """Write /tf_static, latched: the camera's link to the optical frame of the images."""
        self.write_message(
            names.TF_STATIC,
            "tf2_msgs/msg/TFMessage",
            static_transform(stamp_ns, self.frame_id),
            stamp_ns,
            latched=True,
        )

    def write_map(self, topic: str, values: NDArray[Any], stamp_ns: int) -> None:
        """Write (H, W) numbers, such as truth, as a 32FC1 image of the camera's frame."""
        message = image_message(
            values.astype(np.float32, copy=False), "32FC1", stamp_ns, self.frame_id)
        self.write_message(topic, "sensor_msgs/msg/Image", message, stamp_ns)

    def write_message(
        self, topic: str, type_name: str, message: Any, log_time_ns: int, *, latched: bool = False
    ) -> None:
        """Serialise (CDR) and write one message; the topic is resolved in the namespace."""
        data = bag_typestore().serialize_cdr(message, type_name)
        self.write_serialised(topic, type_name, bytes(data), log_time_ns, latched=latched)

    def write_serialised(
        self, topic: str, type_name: str, data: bytes, log_time_ns: int, *, latched: bool = False
    ) -> None:
        """Write one message that is serialised already: CDR with its 4-byte header."""
        absolute = names.resolve(self.namespace, topic)
        if absolute not in self._connections:
            self._connections[absolute] = self._writer.add_connection(
                absolute,
                type_name,
                typestore=bag_typestore(),
                offered_qos_profiles=[names.recorded_qos(latched=latched)],
            )
        self._writer.write(self._connections[absolute], log_time_ns, data)


def remove_bag(path: Path) -> None:
    """Remove a bag's folder; nothing happens where there is none.

    Raises:
        BagError: the folder holds anything but rosbag2 files: it is left as it is.
    """
    if not path.exists():
        return
    if not _is_bag(path):
        raise BagError(
            f"{path} exists and is no rosbag2 folder: it is left alone; choose another path or "
            "remove it first"
        )
    shutil.rmtree(path)


def _is_bag(path: Path) -> bool:
    """True for a folder that holds nothing but rosbag2 files (so that removing it is safe)."""
    if not path.is_dir():
        return False
    known = {".mcap", ".db3", ".yaml", ".db3-wal", ".db3-shm", ".tmp"}
    entries = list(path.iterdir())
    return bool(entries) and all(e.is_file() and e.suffix in known for e in entries)
