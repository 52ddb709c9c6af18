"""Pictures and clouds made from a depth image: plain arrays in, arrays out, no loop per pixel.

    depth_to_millimetres(depth_m)                   -> (H, W) uint16, 0 = invalid (REP-118)
    depth_preview(depth_m, provenance, 0.2, 5.0)    -> (H, W, 3) uint8
    organised_cloud(...)                            -> sensor_msgs/PointCloud2
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from depth_fusion_ros.estimation.estimate import Intrinsics, Provenance
from depth_fusion_ros.navigation.cloud import ORGANISED_STEP_BYTES, organised_points

_TURBO_ANCHORS = (
    (48, 18, 59), (57, 42, 115), (64, 64, 162), (68, 86, 199), (70, 107, 227), (70, 128, 246),
    (66, 147, 255), (55, 167, 250), (40, 187, 236), (29, 204, 217), (24, 220, 195),
    (30, 232, 176), (49, 242, 153), (76, 249, 126), (107, 254, 100), (138, 255, 76),
    (162, 252, 60), (184, 247, 53), (204, 237, 52), (222, 224, 55), (237, 208, 58),
    (247, 192, 58), (253, 173, 53), (254, 152, 44), (251, 128, 34), (245, 104, 24),
    (236, 82, 15), (225, 65, 9), (210, 49, 5), (193, 35, 2), (172, 23, 1), (149, 13, 1),
    (122, 4, 3),
)


def _turbo_table() -> NDArray[np.uint8]:
    places = np.linspace(0, 255, len(_TURBO_ANCHORS))
    anchors = np.asarray(_TURBO_ANCHORS, np.float64)
    steps = np.arange(256)
    columns = [np.interp(steps, places, anchors[:, channel]) for channel in range(3)]
    return np.stack(columns, axis=1).round().astype(np.uint8)


_UNKNOWN, _TOO_NEAR, _TOO_FAR = 256, 257, 258
_PALETTE = np.concatenate(
    [_turbo_table(), np.array([[0, 0, 0], [255, 255, 255], [24, 9, 30]], np.uint8)]
)
"""256 turbo colours (0 = far, 255 = near), then unknown, too near (white) and too far (dusk)."""


def depth_to_millimetres(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return (H, W) uint16 millimetres; 0 where depth is not finite or above 65.535 m."""
    millimetres = depth_m * np.float32(1000.0)
    with np.errstate(invalid="ignore"):
        valid = (millimetres >= 0.5) & (millimetres < 65535.5)
    return np.where(valid, millimetres + np.float32(0.5), 0).astype(np.uint16)


def depth_preview(
    depth_m: NDArray[np.float32], provenance: NDArray[np.uint8], min_m: float, max_m: float
) -> NDArray[np.uint8]:
    """Colour a depth image with a fixed range: turbo, linear in log depth, warm = near.

    Unknown is black, nearer than the estimator's minimum white, farther than its maximum dark;
    finite depths beyond the range get the end colours. Where depth rests on a prior alone every
    third diagonal is black (hatching).

    Args:
        depth_m: (H, W) metres with REP-117 values.
        provenance: (H, W) labels of `Provenance`.
        min_m, max_m: depths of the warm and the cold end.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    scale = np.float32(255.0 / math.log(max_m / min_m))
    with np.errstate(invalid="ignore", divide="ignore"):
        place = (np.float32(math.log(max_m)) - np.log(depth_m)) * scale
        index = np.clip(np.nan_to_num(place), 0.0, 255.0).astype(np.int16)
    index[np.isnan(depth_m)] = _UNKNOWN
    index[np.isneginf(depth_m)] = _TOO_NEAR
    index[np.isposinf(depth_m)] = _TOO_FAR
    prior = provenance == Provenance.PRIOR_ONLY
    if prior.any():
        rows, columns = np.ogrid[: depth_m.shape[0], : depth_m.shape[1]]
        index[prior & ((rows + columns) % 3 == 0)] = _UNKNOWN
    return _PALETTE[index]


_POINT_FIELDS = [
    PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
    for place, name in enumerate(("x", "y", "z", "rgb", "sigma"))
]


def organised_cloud(
    depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32], rgb: NDArray[np.uint8] | None,
    intrinsics: Intrinsics, header: Header,
) -> PointCloud2:
    """Message of `navigation.cloud.organised_points`; same arguments, and stamp and frame.

    Returns:
        PointCloud2 with height H, width W, ``is_dense`` False.
    """
    height, width = depth_m.shape
    message = PointCloud2(
        header=header, height=height, width=width, fields=_POINT_FIELDS, is_bigendian=False,
        point_step=ORGANISED_STEP_BYTES, row_step=width * ORGANISED_STEP_BYTES, is_dense=False,
    )
    message.data = organised_points(depth_m, sigma_m, rgb, intrinsics)
    return message
