"""A camera that traces rays from points on its aperture through the focus plane into the scene.

Nothing is blurred, layered or warped: a pixel is the mean over aperture points (and over the
pixel's area) of what the ray from that point hits first, so occlusion at depth edges is right.
A ray through lens point (u, v) and normalised pixel (xn, yn) is at depth z
``X(z) = u + z·(xn − u/g)``: every ray of a pixel meets in the focus plane at g. The aperture is
cut into vertical *strips*; left, right and full-aperture images of any soft split are weighted
sums of strip images, so a rendered scene serves many sensors (`sensor.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from depth_fusion_ros.simulation.scenes import FAR_AWAY_M, PRIMITIVES, SceneBatch
from depth_fusion_ros.simulation.shapes import CARD, HITS, KINDS, NEAREST_M, NOTHING_M
from depth_fusion_ros.simulation.textures import TILE_PX

STRIPS = 8


@dataclass(frozen=True)
class CameraBatch:
    """One camera per scene: (B,) float32 tensors.

    Attributes:
        aperture_m: aperture diameter f/N, metres.
        focus_diopters: 1/g.
        focal_length_px: fx = s'/p of this focus setting.
        offset_px: (B, 2) image centre relative to the optical axis, px (crops of a sensor).
        width_px, height_px: image size.
    """

    aperture_m: Tensor
    focus_diopters: Tensor
    focal_length_px: Tensor
    offset_px: Tensor
    width_px: int
    height_px: int

    @property
    def blur_gain_px_m(self) -> Tensor:
        """A = fx · aperture diameter: px of signed blur per dioptre (equals f²/(N·p)/(1−f/g))."""
        return self.focal_length_px * self.aperture_m

    def to(self, device: torch.device | str) -> CameraBatch:
        """Return the cameras on another device."""
        return CameraBatch(
            self.aperture_m.to(device), self.focus_diopters.to(device),
            self.focal_length_px.to(device), self.offset_px.to(device), self.width_px,
            self.height_px)

    def rays(self) -> tuple[Tensor, Tensor]:
        """Normalised pixel-centre coordinates: xn (B, 1, W) and yn (B, H, 1), unitless."""
        device = self.focal_length_px.device
        x = torch.arange(self.width_px, device=device) - (self.width_px - 1) / 2
        y = torch.arange(self.height_px, device=device) - (self.height_px - 1) / 2
        fx = self.focal_length_px[:, None]
        xn = (x[None] + self.offset_px[:, :1]) / fx
        yn = (y[None] + self.offset_px[:, 1:]) / fx
        return xn[:, None, :], yn[:, :, None]


@dataclass(frozen=True)
class AperturePattern:
    """Sample points on the unit disc, grouped into `STRIPS` vertical strips of equal width.

    Attributes:
        points: (S, 2) in units of the aperture radius; strip: (S,) strip of each point.
        jitter_px: (S, 2) position inside the pixel, zero mean within each strip so that strips
            are not shifted against each other.
        area: (STRIPS,) share of the aperture's area; centroid: (STRIPS,) mean x of a strip.
    """

    points: Tensor
    strip: Tensor
    jitter_px: Tensor
    area: Tensor
    centroid: Tensor


def aperture_pattern(samples: int, generator: torch.Generator) -> AperturePattern:
    """Stratified points on the disc; the centroid of each strip's points is exact."""
    edges = torch.linspace(-1, 1, STRIPS + 1, dtype=torch.float64)

    def area_below(x: Tensor) -> Tensor:
        return x * torch.sqrt((1 - x * x).clamp_min(0)) + torch.asin(x) + math.pi / 2

    area = area_below(edges[1:]) - area_below(edges[:-1])
    moment = 2 / 3 * ((1 - edges[:-1] ** 2).clamp_min(0) ** 1.5
                      - (1 - edges[1:] ** 2).clamp_min(0) ** 1.5)
    centroid = moment / area
    share = area / math.pi
    points, strips, jitters = [], [], []
    for index in range(STRIPS):
        count = max(2, round(samples * float(share[index])))
        order = torch.randperm(count, generator=generator)
        inside = (order + 0.5) / count
        x = edges[index] + inside * (edges[index + 1] - edges[index])
        x = x + (centroid[index] - x.mean())
        reach = torch.sqrt((1 - x * x).clamp_min(0))
        v = (torch.arange(count) + torch.rand(1, generator=generator)) / count
        y = (2 * (v % 1.0) - 1) * reach
        grid = (torch.arange(count) + 0.5) / count - 0.5
        jitter = torch.stack([grid[torch.randperm(count, generator=generator)],
                              grid[torch.randperm(count, generator=generator)]], -1)
        points.append(torch.stack([x, y - y.mean()], -1))
        strips += [index] * count
        jitters.append(jitter)
    return AperturePattern(
        torch.cat(points).float(), torch.tensor(strips), torch.cat(jitters).float(),
        share.float(), centroid.float(),
    )


Tracer = Callable[..., tuple[Tensor, Tensor]]


def present_primitives(scene: SceneBatch) -> tuple[int, ...]:
    """Indices of the primitives that are in at least one scene of the batch."""
    present = (scene.centre[..., 2] > -FAR_AWAY_M / 2).any(0)
    return tuple(int(p) for p in torch.nonzero(present).flatten())


def trace(
    scene: SceneBatch, lens_x: Tensor, lens_y: Tensor, dir_x: Tensor, dir_y: Tensor,
    primitives: tuple[int, ...] = tuple(range(PRIMITIVES)),
) -> tuple[Tensor, Tensor]:
    """First hit of rays from lens point (B,) along (dir_x (B,1,W), dir_y (B,H,1), 1).

    Returns:
        depth z (B, H, W) metres and linear radiance (B, H, W, 3).
    """
    depth = torch.full(
        (dir_x.shape[0], dir_y.shape[1], dir_x.shape[2]), NOTHING_M, device=dir_x.device
    )
    tex_u, tex_v, highlight = (torch.zeros_like(depth) for _ in range(3))
    shade = torch.full_like(depth, 0.6)
    tile = torch.zeros_like(depth, dtype=torch.long)
    origin_world = torch.stack([lens_x, lens_y, torch.zeros_like(lens_x)], -1)
    toward_light, toward_half = local_directions(scene)
    for p in primitives:
        m = scene.to_local[:, p]
        o = torch.einsum("bij,bj->bi", m, origin_world - scene.centre[:, p])
        ox, oy, oz = (o[:, i, None, None] for i in range(3))
        dx, dy, dz = (
            m[:, i, 0, None, None] * dir_x + m[:, i, 1, None, None] * dir_y
            + m[:, i, 2, None, None] for i in range(3)
        )
        z, px, py, pz, *normal = HITS[KINDS[p]](
            ox, oy, oz, dx, dy, dz, scene.shape[:, p, :, None, None])
        closer = (z > NEAREST_M) & (z < depth)
        depth = torch.where(closer, z, depth)
        size = scene.half_size_m[:, p, :, None, None]
        scale = scene.texels_per_m[:, p, None, None]
        u = (px * size[:, 0] + 0.37 * pz * size[:, 2]) * scale
        v = (py * size[:, 1] + 0.61 * pz * size[:, 2]) * scale
        tex_u = torch.where(closer, u + scene.texel_offset[:, p, 0, None, None], tex_u)
        tex_v = torch.where(closer, v + scene.texel_offset[:, p, 1, None, None], tex_v)
        ambient = scene.ambient[:, None, None]
        lit = _along(normal, toward_light[:, p], KINDS[p])
        shade = torch.where(closer, ambient + (1 - ambient) * lit, shade)
        tile = torch.where(closer, scene.tile[:, p, None, None], tile)
        if scene.gloss is not None:
            strength, exponent = (scene.gloss[:, p, i, None, None] for i in range(2))
            shine = strength * _along(normal, toward_half[:, p], KINDS[p]) ** exponent
            highlight = torch.where(closer, shine, highlight)
    index = (tile * TILE_PX + torch.remainder(tex_v, TILE_PX).long().clamp(0, TILE_PX - 1)
             ) * TILE_PX + torch.remainder(tex_u, TILE_PX).long().clamp(0, TILE_PX - 1)
    albedo = scene.atlas.reshape(-1, 3)[index]
    return depth, albedo * shade[..., None] + highlight[..., None]


def local_directions(scene: SceneBatch) -> tuple[Tensor, Tensor]:
    """Unit vectors to the light and half-way to the viewer in local axes, (B, P, 3) each.

    Normals are taken in local space, which is exact for walls, cards and boxes and a smooth
    stand-in on ellipsoids and tubes; the viewer is seen from the primitive's centre.
    """
    axes = scene.to_local * scene.half_size_m[..., None]
    light = scene.light[:, None].expand_as(scene.centre)
    half = light - scene.centre / scene.centre.norm(dim=-1, keepdim=True)
    half = half / half.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return (torch.einsum("bpij,bpj->bpi", axes, light),
            torch.einsum("bpij,bpj->bpi", axes, half))


def _along(normal: list[Tensor], direction: Tensor, kind: int) -> Tensor:
    """Cosine between normal and direction (B, 3), 0..1; walls and cards have two sides.

    A grazing hit on a thin tube can have a local normal far from unit length in single precision,
    and a highlight raises it to the 90th power.
    """
    cosine = sum((n * direction[:, i, None, None] for i, n in enumerate(normal)),
                 torch.zeros(()))
    return (cosine.abs() if kind <= CARD else cosine).clamp(0.0, 1.0)


def render_depth(scene: SceneBatch, camera: CameraBatch, tracer: Tracer = trace) -> Tensor:
    """Truth: depth (B, H, W) in metres of the central ray at each pixel centre."""
    zero = torch.zeros_like(camera.aperture_m)
    depth, _ = tracer(scene, zero, zero, *camera.rays(), present_primitives(scene))
    return depth


def render_strips(
    scene: SceneBatch, camera: CameraBatch, pattern: AperturePattern, tracer: Tracer = trace
) -> Tensor:
    """Render the image through each aperture strip.

    Returns:
        (B, STRIPS, H, W, 3) float32 linear radiance, each strip normalised to its own area
        (the mean over its aperture points and over the pixel), on the device of the scene.
    """
    xn, yn = camera.rays()
    radius = camera.aperture_m / 2
    batch, height, width = xn.shape[0], camera.height_px, camera.width_px
    out = torch.zeros(batch, STRIPS, height, width, 3, device=xn.device)
    primitives = present_primitives(scene)
    counts = torch.bincount(pattern.strip, minlength=STRIPS)
    for sample in range(pattern.points.shape[0]):
        lens_x = radius * pattern.points[sample, 0]
        lens_y = radius * pattern.points[sample, 1]
        step = pattern.jitter_px[sample]
        dir_x = xn + ((step[0] / camera.focal_length_px) - lens_x * camera.focus_diopters)[
            :, None, None]
        dir_y = yn + ((step[1] / camera.focal_length_px) - lens_y * camera.focus_diopters)[
            :, None, None]
        _, colour = tracer(scene, lens_x, lens_y, dir_x, dir_y, primitives)
        strip = int(pattern.strip[sample])
        out[:, strip] += colour / float(counts[strip])
    return out


def render_focus_sweep(
    scene: SceneBatch, camera: CameraBatch, focus_diopters: list[float],
    pattern: AperturePattern, *, breathing: bool = True, focal_length_m: float = 0.0,
    tracer: Tracer = trace,
) -> Tensor:
    """Full-aperture images focused at each position: (B, N, H, W, 3) linear radiance.

    With `breathing`, fx follows the thin lens (fx ∝ 1/(1 − f·D)), relative to `camera`'s own
    focus; `focal_length_m` must then be given.
    """
    slices = []
    for position in focus_diopters:
        scale = 1.0 if not breathing else (
            (1 - focal_length_m * camera.focus_diopters) / (1 - focal_length_m * position))
        refocused = CameraBatch(
            camera.aperture_m, torch.full_like(camera.focus_diopters, position),
            camera.focal_length_px * scale, camera.offset_px, camera.width_px, camera.height_px)
        strips = render_strips(scene, refocused, pattern, tracer)
        slices.append((strips * pattern.area.to(strips)[None, :, None, None, None]).sum(1))
    return torch.stack(slices, 1)
