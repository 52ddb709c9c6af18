"""The same ray tracer as `camera.trace`, compiled for CPUs: one loop over rays per pixel.

A pixel first asks which primitives its bundle of rays can meet at all (bounding spheres), then
traces every aperture sample against those only. Results agree with `camera.render_strips` to
rounding, ten to thirty times faster; a GPU uses the tensor version. Needs numba (the `train`
extra); `available()` says whether it is there.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depth_fusion_ros.simulation.camera import (
    STRIPS,
    AperturePattern,
    CameraBatch,
    local_directions,
    present_primitives,
)
from depth_fusion_ros.simulation.scenes import SceneBatch
from depth_fusion_ros.simulation.shapes import (
    BOX,
    CARD,
    ELLIPSOID,
    KINDS,
    NEAREST_M,
    NOTHING_M,
    TUBE,
    WALL,
)
from depth_fusion_ros.simulation.textures import TILE_PX

_kernel: Callable[..., None] | None = None


def available() -> bool:
    """Whether numba can be imported."""
    return importlib.util.find_spec("numba") is not None


def render_strips_on_cpu(scene: SceneBatch, camera: CameraBatch, pattern: AperturePattern
                         ) -> Tensor:
    """What `camera.render_strips` returns, for scenes on the CPU.

    Returns:
        (B, STRIPS, H, W, 3) float32 linear radiance.

    Raises:
        ModuleNotFoundError: numba is not installed.
        ValueError: the scene is not on the CPU.
    """
    if scene.centre.device.type != "cpu":
        raise ValueError(f"scene on {scene.centre.device}: the compiled tracer runs on the CPU; "
                         "use camera.render_strips there")
    batch = scene.centre.shape[0]
    out = np.zeros((batch, STRIPS, camera.height_px, camera.width_px, 3), np.float32)
    light, half_way = local_directions(scene)
    gloss = torch.zeros(*scene.centre.shape[:2], 2) if scene.gloss is None else scene.gloss
    counts = torch.bincount(pattern.strip, minlength=STRIPS)
    # The longest half diagonal bounds cards, boxes and ellipsoids, and tubes a little too wide.
    bound = scene.half_size_m.norm(dim=-1)
    arrays = [_array(t) for t in (
        scene.centre, scene.to_local, scene.half_size_m, bound, scene.texels_per_m,
        scene.texel_offset, scene.shape, light, half_way, scene.ambient, gloss, scene.atlas,
        camera.aperture_m / 2, camera.focus_diopters, camera.focal_length_px, camera.offset_px,
        pattern.points, pattern.jitter_px, 1.0 / counts.float())]
    present = np.array(present_primitives(scene), np.int64)
    _compiled()(*arrays, scene.tile.numpy(), np.array(KINDS, np.int64), present,
                pattern.strip.numpy(), out)
    return torch.from_numpy(out)


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ascontiguousarray(tensor.detach().numpy().astype(np.float32))


def _compiled() -> Callable[..., None]:
    """Compile on first use (about 15 s)."""
    global _kernel
    if _kernel is None:
        import numba

        jit = numba.njit(fastmath={"nsz", "arcp", "contract", "afn"}, error_model="numpy")
        _kernel = numba.njit(parallel=True, error_model="numpy",
                             fastmath={"nsz", "arcp", "contract", "afn"})(_make(jit))
    return _kernel


def _make(jit: Any) -> Callable[..., None]:
    """Build the kernel; its parts are inlined by the compiler."""
    import numba

    prange = numba.prange
    one, zero = np.float32(1), np.float32(0)
    nearest = np.float32(NEAREST_M)

    @jit
    def nearest_hits(kind, p, o, d, c, shape, depth, best):  # type: ignore[no-untyped-def]
        """Keep hits nearer than `depth` (S,); o, d (3, S) per sample, c (3,) added to d.

        One branch a kind, so that the loops over samples become vector instructions.
        """
        for s in range(depth.shape[0]):
            ox, oy, oz = o[0, s], o[1, s], o[2, s]
            dx, dy, dz = d[0, s] + c[0], d[1, s] + c[1], d[2, s] + c[2]
            if kind == WALL:
                z = -oz / dz
                hit = z > nearest
            elif kind == CARD:
                z = -oz / dz
                px, py = abs(ox + z * dx), abs(oy + z * dy)
                square = px * px + py * py
                if shape[0] == np.float32(2):
                    radius = square
                elif shape[0] == one:
                    radius = px + py
                else:
                    fx, fy = min(px, np.float32(2)), min(py, np.float32(2))
                    radius = fx ** shape[0] + fy ** shape[0]
                hit = (z > nearest) & (radius < one) & (square >= shape[1] * shape[1])
            elif kind == ELLIPSOID:
                qa = dx * dx + dy * dy + dz * dz
                qb = ox * dx + oy * dy + oz * dz
                disc = qb * qb - qa * (ox * ox + oy * oy + oz * oz - one)
                z = (-qb - math.sqrt(max(disc, zero))) / qa
                hit = (disc > zero) & (z > nearest)
            elif kind == TUBE:
                qa = dx * dx + dz * dz
                qb = ox * dx + oz * dz
                disc = qb * qb - qa * (ox * ox + oz * oz - one)
                root = math.sqrt(max(disc, zero))
                z = (-qb - root) / qa
                if abs(oy + z * dy) >= one:
                    z = (-qb + root) / qa
                hit = (disc > zero) & (abs(oy + z * dy) < one) & (z > nearest)
            else:
                ix, iy, iz = one / dx, one / dy, one / dz
                z = max(max(-ox * ix - abs(ix), -oy * iy - abs(iy)), -oz * iz - abs(iz))
                leave = min(min(-ox * ix + abs(ix), -oy * iy + abs(iy)), -oz * iz + abs(iz))
                hit = (z < leave) & (z > nearest)
            if hit & (z < depth[s]):
                depth[s] = z
                best[s] = p

    @jit
    def normal_at(kind, ox, oy, oz, dx, dy, dz, z):  # type: ignore[no-untyped-def]
        """Local normal of a hit at depth z."""
        if kind <= CARD:
            return zero, zero, one
        if kind == ELLIPSOID:
            return ox + z * dx, oy + z * dy, oz + z * dz
        if kind == TUBE:
            return ox + z * dx, zero, oz + z * dz
        near_x, near_y = -(ox + np.sign(dx)) / dx, -(oy + np.sign(dy)) / dy
        near_z = -(oz + np.sign(dz)) / dz
        if near_x >= near_y and near_x >= near_z:
            return -np.sign(dx), zero, zero
        if near_y >= near_z:
            return zero, -np.sign(dy), zero
        return zero, zero, -np.sign(dz)

    @jit
    def may_hit(p, centre, reach, xn, yn, radius, focus, fx):  # type: ignore[no-untyped-def]
        """Whether the pixel's bundle of rays can meet the bounding sphere."""
        cx, cy, cz = centre[p, 0], centre[p, 1], centre[p, 2]
        if cz < -reach[p]:
            return False
        along = (cx * xn + cy * yn + cz) / (xn * xn + yn * yn + one)
        ex, ey, ez = cx - along * xn, cy - along * yn, cz - along
        limit = reach[p] + (cz + reach[p]) / fx + radius * max(
            abs(one - (cz - reach[p]) * focus), abs(one - (cz + reach[p]) * focus))
        return ex * ex + ey * ey + ez * ez <= limit * limit * np.float32(1.02)

    def kernel(  # type: ignore[no-untyped-def]
            centre, local, half, bound, texels, shift, shape, light, half_way, ambient, gloss,
            atlas, radius, focus, fx, offset, points, jitter, inverse_count, tile, kinds, present,
            strip, out):
        batch, _, height, width, _ = out.shape
        samples, count_p = points.shape[0], centre.shape[1]
        size = np.int64(TILE_PX)
        for row in prange(batch * height):
            b, y = row // height, row % height
            o = np.empty((count_p, 3, samples), np.float32)
            d = np.empty((count_p, 3, samples), np.float32)
            for index in range(present.shape[0]):
                p = present[index]
                for i in range(3):
                    m0, m1, m2 = local[b, p, i, 0], local[b, p, i, 1], local[b, p, i, 2]
                    start = -(m0 * centre[b, p, 0] + m1 * centre[b, p, 1] + m2 * centre[b, p, 2])
                    for s in range(samples):
                        lx, ly = radius[b] * points[s, 0], radius[b] * points[s, 1]
                        o[p, i, s] = start + m0 * lx + m1 * ly
                        d[p, i, s] = m0 * (jitter[s, 0] / fx[b] - lx * focus[b]) \
                            + m1 * (jitter[s, 1] / fx[b] - ly * focus[b])
            depth, best = np.empty(samples, np.float32), np.empty(samples, np.int32)
            toward = np.empty((count_p, 3), np.float32)
            yn = (np.float32(y) - np.float32(height - 1) / 2 + offset[b, 1]) / fx[b]
            for x in range(width):
                xn = (np.float32(x) - np.float32(width - 1) / 2 + offset[b, 0]) / fx[b]
                depth[:] = np.float32(NOTHING_M)
                best[:] = -1
                for index in range(present.shape[0]):
                    p = present[index]
                    if kinds[p] != WALL and not may_hit(
                            p, centre[b], bound[b], xn, yn, radius[b], focus[b], fx[b]):
                        continue
                    for i in range(3):
                        toward[p, i] = local[b, p, i, 0] * xn + local[b, p, i, 1] * yn \
                            + local[b, p, i, 2]
                    if kinds[p] == WALL:
                        nearest_hits(WALL, p, o[p], d[p], toward[p], shape[b, p], depth, best)
                    elif kinds[p] == CARD:
                        nearest_hits(CARD, p, o[p], d[p], toward[p], shape[b, p], depth, best)
                    elif kinds[p] == ELLIPSOID:
                        nearest_hits(ELLIPSOID, p, o[p], d[p], toward[p], shape[b, p], depth,
                                     best)
                    elif kinds[p] == TUBE:
                        nearest_hits(TUBE, p, o[p], d[p], toward[p], shape[b, p], depth, best)
                    else:
                        nearest_hits(BOX, p, o[p], d[p], toward[p], shape[b, p], depth, best)
                for s in range(samples):
                    p = best[s]
                    weight = inverse_count[strip[s]]
                    if p < 0:
                        for c in range(3):
                            out[b, strip[s], y, x, c] += weight * np.float32(0.6) * atlas[
                                0, 0, 0, c]
                        continue
                    z, kind = depth[s], kinds[p]
                    ox, oy, oz = o[p, 0, s], o[p, 1, s], o[p, 2, s]
                    dx, dy = d[p, 0, s] + toward[p, 0], d[p, 1, s] + toward[p, 1]
                    dz = d[p, 2, s] + toward[p, 2]
                    nx, ny, nz = normal_at(kind, ox, oy, oz, dx, dy, dz, z)
                    hx, hy = ox + z * dx, oy + z * dy
                    hz = zero if kind <= CARD else oz + z * dz
                    lit = nx * light[b, p, 0] + ny * light[b, p, 1] + nz * light[b, p, 2]
                    lit = min(abs(lit) if kind <= CARD else max(lit, zero), one)
                    shade = ambient[b] + (one - ambient[b]) * lit
                    shine = zero
                    if gloss[b, p, 0] > zero:
                        cosine = nx * half_way[b, p, 0] + ny * half_way[b, p, 1] \
                            + nz * half_way[b, p, 2]
                        cosine = min(abs(cosine) if kind <= CARD else max(cosine, zero), one)
                        shine = gloss[b, p, 0] * cosine ** gloss[b, p, 1]
                    u = (hx * half[b, p, 0] + np.float32(0.37) * hz * half[b, p, 2]
                         ) * texels[b, p] + shift[b, p, 0]
                    v = (hy * half[b, p, 1] + np.float32(0.61) * hz * half[b, p, 2]
                         ) * texels[b, p] + shift[b, p, 1]
                    column = np.int64(math.floor(u)) % size
                    line = np.int64(math.floor(v)) % size
                    for c in range(3):
                        out[b, strip[s], y, x, c] += weight * (
                            atlas[tile[b, p], line, column, c] * shade + shine)

    return kernel
