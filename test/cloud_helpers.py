"""Frames as an estimator makes them, and worse: what the tests of the clouds share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Provenance
from depth_fusion_ros.navigation.cloud import CloudBytes, CloudOptions
from depth_fusion_ros.optics.intrinsics import Intrinsics

CAMERA = Intrinsics(90.0, 85.0, 41.3, 29.8, 80, 60)
OPTIONS = CloudOptions()
UNSURE = [Provenance.NONE, Provenance.PRIOR_ONLY, Provenance.SATURATED, Provenance.TEXTURELESS,
          Provenance.OUT_OF_RANGE, Provenance.MOTION_REJECTED]
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, 1e-3, 1e30, -2.0], np.float32)


def plane(depth_m: float, ratio: float = 0.02) -> tuple[NDArray, NDArray, NDArray]:
    """Depth, sigma and labels of a wall that is measured everywhere."""
    depth = np.full((CAMERA.height_px, CAMERA.width_px), depth_m, np.float32)
    return depth, depth * np.float32(ratio), np.full(depth.shape, Provenance.MEASURED, np.uint8)


def points_of(cloud: CloudBytes) -> NDArray[np.float32]:
    points = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.step_bytes // 4)
    assert len(points) == cloud.count and np.isfinite(points).all()
    return points


def pixels_of(points: NDArray[np.float32], camera: Intrinsics) -> NDArray[np.intp]:
    """Flat index of the pixel that each point lies on; fails where it lies between pixels."""
    column = points[:, 0] / points[:, 2] * camera.fx_px + camera.cx_px
    row = points[:, 1] / points[:, 2] * camera.fy_px + camera.cy_px
    assert np.allclose(column, column.round(), atol=1e-2)
    assert np.allclose(row, row.round(), atol=1e-2)
    return (row.round() * camera.width_px + column.round()).astype(np.intp)


@st.composite
def frames(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray, Intrinsics]:
    """Anything an estimator may say, and worse."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.3, 3.0, 50.0, 1e5]))
    depth = (random.random((height, width)) * scale).astype(np.float32)
    sigma = depth * random.choice(np.array([0, 0.01, 0.1, 0.14, 0.5], np.float32), depth.shape)
    odd = random.random(depth.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    depth[odd] = random.choice(ODD, int(odd.sum()))
    unknown = ~np.isfinite(depth) | (random.random(depth.shape) < 0.1)
    sigma[unknown] = random.choice(np.array([np.nan, np.inf], np.float32), int(unknown.sum()))
    labels = random.choice([1, 1, 1, 2, 2, 0, 3, 4, 5, 6, 7], depth.shape).astype(np.uint8)
    focal = draw(st.floats(5.0, 500.0))
    return depth, sigma, labels, Intrinsics(focal, focal * 1.1, width / 2.3, height / 1.9, width,
                                            height)


@st.composite
def some_options(draw: st.DrawFn) -> CloudOptions:
    return CloudOptions(
        voxel_m=draw(st.sampled_from([0.01, 0.05, 1.0])),
        voxel_sigma_scale=draw(st.sampled_from([0.0, 0.2, 10.0])),
        max_bytes=draw(st.sampled_from([64, 200, 1000, 235_000])),
        max_sigma_ratio=draw(st.sampled_from([0.05, 0.15, 1.0])),
        use_prior_only=draw(st.booleans()), clearing_range_m=draw(st.sampled_from([0.5, 4.0])),
        clearing_max_sigma_ratio=draw(st.sampled_from([0.05, 0.3, 1.0])),
        clearing_stride=draw(st.integers(1, 9)),
        max_incidence_deg=90.0,  # veils are the matter of test_navigation_veil.py
        surer_square_px=0)  # and this of test_navigation_surer.py


def qualifying(depth: NDArray, sigma: NDArray, labels: NDArray, ratio: float,
               priors: bool) -> NDArray[np.bool_]:
    allowed = [Provenance.MEASURED, Provenance.FUSED] + [Provenance.PRIOR_ONLY] * priors
    with np.errstate(invalid="ignore", over="ignore"):
        return (np.isin(labels, allowed) & np.isfinite(depth) & (depth > 0) & (depth < 1e6)
                & np.isfinite(sigma) & (sigma <= ratio * depth))
