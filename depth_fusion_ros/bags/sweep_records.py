"""Join the messages of a bag to focus sweeps, by the tags of their lens states and by stamp.

Lens states are read first: they are small and say which stamps make a sweep. A sweep ends where
the number changes, or where a place in it comes again (a controller that was started anew).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import topics as names
from .images import stamp_ns
from .records import SliceRecord, SweepRecord, stamped_array
from .typestore import BagError

if TYPE_CHECKING:
    from .reader import BagReader


def sweep_stamps(bag: BagReader, namespace: str) -> list[tuple[int, ...]]:
    """Return the stamps (ns) of the slices of each sweep, as `BagReader.sweep_stamps`."""
    return [tuple(item.stamp_ns for item in sweep.slices) for sweep in _announced(bag, namespace)]


def sweep_records(bag: BagReader, namespace: str) -> Iterator[SweepRecord]:
    """Yield whole sweeps, as `BagReader.sweeps`."""
    waiting = {sweep.stamp_ns: sweep for sweep in _announced(bag, namespace)}
    slice_of = {item.stamp_ns: (item, sweep) for sweep in waiting.values() for item in sweep.slices}
    image, info, truth = (names.resolve(namespace, topic) for topic in (
        names.SWEEP_IMAGE, names.SWEEP_CAMERA_INFO, names.TRUTH_DEPTH))
    recorded = {topic.name for topic in bag.topics if topic.message_count} & {image, info, truth}
    for topic, _, message in bag.messages(sorted(recorded)) if recorded else ():
        part, sweep = slice_of.get(stamp_ns(message), (None, None))
        if part is None or sweep is None:
            continue
        if topic == image:
            part.image = stamped_array(message)
        elif topic == info:
            part.camera_info = message
        elif part.stamp_ns == sweep.stamp_ns:
            sweep.truth = stamped_array(message)
        if sweep.is_complete and (sweep.truth is not None or truth not in recorded):
            waiting.pop(sweep.stamp_ns, None)
            for item in sweep.slices:  # its images go when the caller lets go of the record
                slice_of.pop(item.stamp_ns)
            yield sweep
    yield from waiting.values()


def _announced(bag: BagReader, namespace: str) -> list[SweepRecord]:
    """Return the sweeps that the lens states announce, without images."""
    topic = names.resolve(namespace, names.LENS_STATE)
    found: list[SweepRecord] = []
    taken: set[int] = set()
    for _, _, state in bag.messages([topic]):
        if state.sweep_id == 0:
            continue
        if not found or found[-1].sweep_id != state.sweep_id or state.sweep_index in taken:
            found.append(SweepRecord(int(state.sweep_id), int(state.sweep_size)))
            taken = set()
        taken.add(int(state.sweep_index))
        found[-1].slices.append(SliceRecord(stamp_ns(state), state))
    if not found:
        raise BagError(
            f"bag {bag.path}: no message of {topic} belongs to a focus sweep (sweep_id is 0 or "
            "there is none); record lens states that a sweep controller has tagged"
        )
    for sweep in found:
        sweep.slices.sort(key=lambda item: int(item.lens_state.sweep_index))
    return found
