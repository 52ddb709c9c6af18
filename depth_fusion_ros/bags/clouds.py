"""Points out of a PointCloud2 message object of `rosbags`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .typestore import BagError

_FLOAT32 = 7  # sensor_msgs/PointField


def cloud_array(message: Any, fields: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the points of a little-endian sensor_msgs/PointCloud2, NaN included.

    Args:
        fields: names of float32 fields, for example ("x", "y", "z").

    Returns:
        (N, len(fields)) float32, a copy, row by row of an organised cloud.

    Raises:
        BagError: a field is missing or no float32, or the bytes are not those of the points.
    """
    offsets = {f.name: int(f.offset) for f in message.fields if f.datatype == _FLOAT32}
    if missing := [name for name in fields if name not in offsets]:
        raise BagError(f"cloud: has no float32 field {', '.join(missing)}, only "
                       f"{', '.join(offsets) or 'none'}; choose among these")
    count, step = int(message.width) * int(message.height), int(message.point_step)
    data = np.asarray(message.data, np.uint8)
    if message.is_bigendian or data.size != count * step:
        raise BagError(f"cloud of {count} points of {step} bytes: has {data.size} bytes "
                       f"{'big' if message.is_bigendian else 'little'}-endian; must be "
                       f"{count * step}, little-endian")
    points = data.reshape(count, step)
    return np.stack([np.ascontiguousarray(points[:, at:at + 4]).view("<f4")[:, 0]
                     for at in (offsets[name] for name in fields)], -1).astype(np.float32)
