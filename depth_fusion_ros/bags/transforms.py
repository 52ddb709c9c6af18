"""Frames of a bag: /tf and /tf_static, and the transform between two of them at a time.

    transforms = BagTransforms.read(bag)
    transforms.matrix("camera_rgb_optical_frame", "lidar", stamp_ns) @ [x, y, z, 1]
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .images import stamp_ns
from .topics import TF_STATIC
from .typestore import BagError

if TYPE_CHECKING:
    from .reader import BagReader

TF = "/tf"
Matrix = NDArray[np.float64]
_SLACK_NS = 100_000_000
"""How far outside its recorded times a moving transform is still taken from its nearest end."""


@dataclass
class _Edge:
    """A frame seen from its parent: one pose for ever, or poses by stamp."""

    parent: str
    static: bool
    stamps_ns: list[int] = field(default_factory=list)
    positions: list[NDArray[np.float64]] = field(default_factory=list)
    quaternions: list[NDArray[np.float64]] = field(default_factory=list)

    def pose(self, wanted_ns: int, child: str) -> Matrix:
        """(4, 4) parent ← child at a time, interpolated between its neighbours."""
        after = bisect_left(self.stamps_ns, wanted_ns)
        if self.static or len(self.stamps_ns) == 1:
            return _matrix(self.positions[-1], self.quaternions[-1])
        if not (self.stamps_ns[0] - _SLACK_NS <= wanted_ns <= self.stamps_ns[-1] + _SLACK_NS):
            raise BagError(
                f"tf {self.parent} → {child}: is recorded from {self.stamps_ns[0]} to "
                f"{self.stamps_ns[-1]} ns, {wanted_ns} ns is outside; record /tf as long as the "
                "images")
        if after in (0, len(self.stamps_ns)):
            index = min(after, len(self.stamps_ns) - 1)
            return _matrix(self.positions[index], self.quaternions[index])
        low, high = after - 1, after
        share = (wanted_ns - self.stamps_ns[low]) / (self.stamps_ns[high] - self.stamps_ns[low])
        position = (1 - share) * self.positions[low] + share * self.positions[high]
        return _matrix(position, _slerp(self.quaternions[low], self.quaternions[high], share))


class BagTransforms:
    """The tree of frames of one bag."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    @classmethod
    def read(cls, bag: BagReader) -> BagTransforms:
        """Read all transforms of an open bag; a bag without any gives an empty tree."""
        tree = cls()
        recorded = [s.name for s in bag.topics if s.name in (TF, TF_STATIC) and s.message_count]
        if recorded:
            for topic, _, message in bag.messages(recorded):
                for transform in message.transforms:
                    tree.add(transform, static=topic == TF_STATIC)
        for edge in tree._edges.values():
            order = np.argsort(edge.stamps_ns, kind="stable")
            edge.stamps_ns = [edge.stamps_ns[i] for i in order]
            edge.positions = [edge.positions[i] for i in order]
            edge.quaternions = [edge.quaternions[i] for i in order]
        return tree

    def add(self, transform: Any, *, static: bool) -> None:
        """Enter a geometry_msgs/TransformStamped.

        Raises:
            BagError: its rotation is no quaternion.
        """
        child, parent = (transform.child_frame_id.lstrip("/"),
                         transform.header.frame_id.lstrip("/"))
        moved, turned = transform.transform.translation, transform.transform.rotation
        quaternion = np.array([turned.x, turned.y, turned.z, turned.w], np.float64)
        length = float(np.linalg.norm(quaternion))
        if not 0.5 < length < 2:
            raise BagError(f"tf {parent} → {child}: rotation has length {length:g}, must be 1; "
                           "correct its publisher")
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent:
            edge = self._edges[child] = _Edge(parent, static)
        edge.stamps_ns.append(stamp_ns(transform))
        edge.positions.append(np.array([moved.x, moved.y, moved.z], np.float64))
        edge.quaternions.append(quaternion / length)

    def matrix(self, target: str, source: str, wanted_ns: int) -> Matrix:
        """(4, 4) that takes points of `source` to `target` at a time, ns.

        Raises:
            BagError: no chain of recorded transforms leads from one to the other at that time.
        """
        ups = {target: np.eye(4)} | dict(self._chain(target, wanted_ns))
        down: Matrix = np.eye(4)
        if source in ups:
            return np.asarray(np.linalg.inv(ups[source]))
        for frame, pose in self._chain(source, wanted_ns):
            down = pose
            if frame in ups:
                return np.asarray(np.linalg.inv(ups[frame]) @ down)
        known = ", ".join(sorted({*self._edges, *(e.parent for e in self._edges.values())}))
        raise BagError(f"tf: nothing leads from {source} to {target}, only {known or 'no frame'} "
                       "are recorded; record /tf and /tf_static with the images")

    def ancestors(self, frame: str) -> list[str]:
        """Frames that recorded transforms lead up to from a frame, whenever; its parent first."""
        found: list[str] = []
        while (edge := self._edges.get(frame)) is not None and edge.parent not in found:
            frame = edge.parent
            found.append(frame)
        return found

    def _chain(self, frame: str, wanted_ns: int) -> Iterator[tuple[str, Matrix]]:
        """(ancestor, ancestor ← frame), from the parent up."""
        pose, seen = np.eye(4), {frame}
        while (edge := self._edges.get(frame)) is not None:
            pose = edge.pose(wanted_ns, frame) @ pose
            frame = edge.parent
            if frame in seen:
                raise BagError(f"tf: {frame} is its own ancestor; correct the publishers")
            seen.add(frame)
            yield frame, pose


def _matrix(position: NDArray[np.float64], quaternion: NDArray[np.float64]) -> Matrix:
    x, y, z, w = quaternion
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
    matrix[:3, 3] = position
    return matrix


def _slerp(first: NDArray[np.float64], second: NDArray[np.float64], share: float
           ) -> NDArray[np.float64]:
    cosine = float(first @ second)
    second, cosine = (second, cosine) if cosine >= 0 else (-second, -cosine)
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        mixed = (1 - share) * first + share * second
        return np.asarray(mixed / np.linalg.norm(mixed))
    return np.asarray((np.sin((1 - share) * angle) * first + np.sin(share * angle) * second)
                      / np.sin(angle))
