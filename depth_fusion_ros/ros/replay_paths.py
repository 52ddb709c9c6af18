"""The two paths a bag can be replayed through: their node, their topics, what makes one set.

    path = replay_path("focus_sweep")
    sets = path.sets(bag)             # which stamps of the bag belong together
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.reader import BagReader


@dataclass(frozen=True)
class SetLayout:
    """Which stamps make one input set, which has one of them for its own stamp.

    Attributes:
        set_of_stamp: stamp -> stamp of its set, ns; None = every stamp is a set of its own.
    """

    set_of_stamp: Mapping[int, int] | None = None
    _sizes: Mapping[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sizes", Counter((self.set_of_stamp or {}).values()))

    def set_of(self, stamp_ns: int) -> int | None:
        """Return the stamp of the set to which a stamp belongs; None = to no set."""
        return stamp_ns if self.set_of_stamp is None else self.set_of_stamp.get(stamp_ns)

    def size_of(self, set_stamp_ns: int) -> int:
        """Return how many stamps a set has."""
        return 1 if self.set_of_stamp is None else self._sizes[set_stamp_ns]


@dataclass(frozen=True)
class ReplayPath:
    """One path.

    Attributes:
        name: dual_pixel or focus_sweep.
        executable: node that estimates. params_file: its YAML, in the package's share.
        input_topics: what one stamp of a set has, relative to the namespace.
        image_topic: the one of them whose messages are counted; nobody listens to the path
            without it.
        counts_slices: whether the node accounts for each image (diagnostics ``slices.*``).
        sets: finds the sets of an open bag in a namespace.
    """

    name: str
    executable: str
    params_file: str
    input_topics: tuple[str, ...]
    image_topic: str
    counts_slices: bool
    sets: Callable[[BagReader, str], SetLayout]


def _set_for_each_stamp(bag: BagReader, namespace: str) -> SetLayout:
    return SetLayout()


def _sweeps_by_newest_slice(bag: BagReader, namespace: str) -> SetLayout:
    sweeps = bag.sweep_stamps(namespace)
    return SetLayout({stamp: max(stamps) for stamps in sweeps for stamp in stamps})


DUAL_PIXEL = ReplayPath(
    "dual_pixel", "dual_pixel_depth", "config/dual_pixel.yaml", tuple(names.INPUT_TOPICS),
    names.LEFT_IMAGE, False, _set_for_each_stamp)
FOCUS_SWEEP = ReplayPath(
    "focus_sweep", "focus_sweep_depth", "config/focus_sweep.yaml",
    tuple(names.SWEEP_INPUT_TOPICS), names.SWEEP_IMAGE, True, _sweeps_by_newest_slice)
PATHS = (DUAL_PIXEL, FOCUS_SWEEP)


def replay_path(name: str) -> ReplayPath:
    """Return a path by its name.

    Raises:
        ValueError: no such path; the text lists the known ones.
    """
    for path in PATHS:
        if path.name == name:
            return path
    raise ValueError(f"path = {name!r}: use one of {', '.join(path.name for path in PATHS)}")
