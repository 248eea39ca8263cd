"""Random surfaces and outlines from which the synthetic scenes are made.

All images are RGB uint8 of shape (size, size, 3); all outlines are float32 alpha maps of shape
(size, size) in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np

Color = np.ndarray


def random_color(rng: np.random.Generator) -> Color:
    """A random RGB color (3,), float32 in 0..255, spread evenly over brightness."""
    hue_saturation = rng.uniform(0.0, 1.0, 3).astype(np.float32)
    gray = hue_saturation.mean()
    saturation = rng.uniform(0.1, 1.0)
    return np.clip((gray + (hue_saturation - gray) * 1.6 * saturation) * 255.0, 5.0, 250.0)


def smooth_noise(rng: np.random.Generator, size: int, coarsest: int, octaves: int) -> np.ndarray:
    """Fractal noise (size, size), float32 in 0..1; `coarsest` is the first octave's grid size."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for octave in range(octaves):
        cells = coarsest * 2**octave
        if cells > size:
            break
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        smooth = cv2.INTER_CUBIC if cells < 16 else cv2.INTER_LINEAR
        total += weight * cv2.resize(grid, (size, size), interpolation=smooth)
        weight *= 0.6
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _pattern(rng: np.random.Generator, size: int) -> np.ndarray:
    """A regular pattern (size, size) in 0..1: stripes, checks, dots, rings or a ramp."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, np.pi)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = -np.sin(angle) * x + np.cos(angle) * y
    frequency = rng.uniform(2, 7) * 2 * np.pi
    kind = rng.integers(5)
    if kind == 0:
        return 0.5 + 0.5 * np.tanh(4 * np.sin(frequency * u))
    if kind == 1:
        return 0.5 + 0.5 * np.tanh(6 * np.sin(frequency * u) * np.sin(frequency * v))
    if kind == 2:
        return (np.sin(frequency * u) * np.sin(frequency * v) > 0.4).astype(np.float32)
    if kind == 3:
        return 0.5 + 0.5 * np.sin(frequency * np.hypot(u, v))
    return np.clip(u + 0.5, 0, 1)


def random_texture(rng: np.random.Generator, size: int, colors: int = 3) -> np.ndarray:
    """A textured surface: two or three colors mixed by fractal noise and a regular pattern."""
    palette = [random_color(rng) for _ in range(colors)]
    noise = smooth_noise(rng, size, int(rng.integers(2, 9)), 5)
    surface = palette[0] + (palette[1] - palette[0]) * _sharpen(rng, noise)[..., None]
    if colors > 2 and rng.random() < 0.75:
        mix = _pattern(rng, size)[..., None] * rng.uniform(0.3, 1.0)
        surface = surface * (1 - mix) + palette[2] * mix
    grain = smooth_noise(rng, size, 32, 2)[..., None] - 0.5
    return np.clip(surface + grain * rng.uniform(0, 60), 0, 255).astype(np.uint8)


def _sharpen(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    gain = rng.uniform(1.0, 6.0)
    return 0.5 + 0.5 * np.tanh(gain * (noise - 0.5))


def random_background(rng: np.random.Generator, size: int, clutter: int) -> np.ndarray:
    """A textured backdrop with `clutter` textured shapes painted on it."""
    image = random_texture(rng, size)
    noise = smooth_noise(rng, size, 8, 4)
    pattern = _pattern(rng, size)
    for _ in range(clutter):
        extent = int(size * rng.uniform(0.06, 0.35))
        (top, left), (from_top, from_left) = rng.integers(0, size - extent, (2, 2))
        surface = noise if rng.random() < 0.6 else pattern
        mix = surface[from_top : from_top + extent, from_left : from_left + extent, None]
        painted = random_color(rng) * mix + random_color(rng) * (1 - mix)
        alpha = random_outline(rng, extent)[..., None]
        patch = image[top : top + extent, left : left + extent]
        patch[...] = (patch * (1 - alpha) + painted * alpha).astype(np.uint8)
    return image


def random_leaves(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """A surface of `count` sharp shapes, many small and few large, that lie on one another like
    dead leaves: as full of edges of all lengths as a photograph is.
    """
    palette = np.stack([random_color(rng) for _ in range(int(rng.integers(2, 7)))])
    gray = palette.mean(1, keepdims=True)
    palette = gray + rng.uniform(0, 0.9) * (palette - gray)
    image = np.full((size, size, 3), palette[0].astype(np.uint8))
    radii = np.minimum(size * rng.uniform(0.008, 0.03) * rng.random(count) ** -0.6, 0.4 * size)
    turn, upright = rng.uniform(0, np.pi), rng.random() < 0.5
    spread = rng.uniform(5, 40)
    for radius in np.sort(radii)[::-1]:
        angle = turn + (rng.integers(2) * np.pi / 2 if upright else rng.uniform(0, np.pi))
        color = palette[int(rng.integers(len(palette)))] + rng.normal(0, spread)
        _draw_leaf(rng, image, radius, angle, color.clip(0, 255).tolist())
    return _shade(rng, image)


def _draw_leaf(
    rng: np.random.Generator, image: np.ndarray, radius: float, angle: float, color: list[float]
) -> None:
    """An ellipse, a bar, a stroke or a frame of the given radius in pixels somewhere."""
    center = tuple(rng.uniform(0, len(image), 2))
    length, width = radius, radius * rng.uniform(0.15, 1.0)
    kind = ("ellipse", "stroke", "frame", "bar")[rng.integers(4)]
    if kind == "ellipse":
        axes = (max(1, int(length)), max(1, int(width)))
        place = (int(center[0]), int(center[1]))
        cv2.ellipse(image, place, axes, np.degrees(angle), 0, 360, color, -1, cv2.LINE_AA)
        return
    if kind == "stroke":
        length, width = 1.5 * radius, max(1.0, 0.06 * radius)
    box = cv2.boxPoints((center, (2 * length, 2 * width), float(np.degrees(angle))))
    if kind == "frame":
        thickness = max(1, int(0.12 * radius))
        cv2.polylines(image, [box.astype(np.int32)], True, color, thickness, cv2.LINE_AA)
    else:
        cv2.fillConvexPoly(image, box.astype(np.int32), color, cv2.LINE_AA)


def _shade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light over a surface."""
    light = smooth_noise(rng, len(image), 2, 3)[..., None] - 0.5
    return np.clip(image * (1 + rng.uniform(0, 0.8) * light), 0, 255).astype(np.uint8)


def random_outline(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random object outline as an alpha map (size, size): blob, polygon, parts, ring or bar."""
    canvas = np.zeros((size, size), np.uint8)
    kind = rng.choice(
        ["blob", "polygon", "ellipse", "parts", "ring", "bar"], p=[0.3, 0.2, 0.1, 0.28, 0.05, 0.07]
    )
    center = (size // 2, size // 2)
    if kind in ("blob", "polygon"):
        points = _blob(rng, size) if kind == "blob" else _polygon(rng, size)
        cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA)
    elif kind == "ellipse":
        axes = (int(size * 0.46), int(size * rng.uniform(0.2, 0.46)))
        cv2.ellipse(canvas, center, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == "parts":
        _draw_parts(rng, canvas)
    elif kind == "ring":
        thickness = int(size * rng.uniform(0.1, 0.2))
        axes = (int(size * 0.36), int(size * rng.uniform(0.26, 0.36)))
        cv2.ellipse(canvas, center, axes, 0, 0, 360, 255, thickness, cv2.LINE_AA)
    else:
        half = np.array([0.46, rng.uniform(0.1, 0.25)]) * size
        box = cv2.boxPoints((center, tuple(2 * half), float(rng.uniform(0, 180))))
        cv2.fillPoly(canvas, [box.astype(np.int32)], 255, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255.0


def random_wire(rng: np.random.Generator, size: int) -> np.ndarray:
    """Outline of an object of strokes, thick and thin, that grow from one another, as an alpha map
    (size, size): chairs, ladders, bicycles, plants.
    """
    canvas = np.zeros((size, size), np.uint8)
    ends = [np.full(2, 0.5) + rng.uniform(-0.2, 0.2, 2)]
    square = rng.random() < 0.5
    turn = rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(3, 9))):
        begin = ends[int(rng.integers(len(ends)))]
        angle = turn + (rng.integers(4) * np.pi / 2 if square else rng.uniform(0, 2 * np.pi))
        step = rng.uniform(0.2, 0.6) * np.array([np.cos(angle), np.sin(angle)])
        end = np.clip(begin + step, 0.06, 0.94)
        ends += [end, (begin + end) / 2]
        thickness = max(3, int(size * rng.uniform(0.03, 0.26) ** 1.2))
        corners = [tuple(int(v) for v in size * p) for p in (begin, end)]
        cv2.line(canvas, *corners, 255, thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255.0


def random_compound(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Texture and outline of an object of two to four parts, every one with a surface of its own,
    held together by thin bars, as a chair is of back, seat and legs.
    """
    texture = np.empty((size, size, 3), np.uint8)
    texture[:] = random_color(rng)
    alpha = np.zeros((size, size), np.float32)
    centers = _spread_centers(rng, int(rng.integers(2, 5))) * size
    _draw_bars(rng, alpha, centers)
    for center in centers:
        extent = int(size * rng.uniform(0.28, 0.56))
        left, top = np.clip(center - extent / 2, 0, size - extent).astype(int)
        part = random_outline(rng, extent)
        surface = random_texture(rng, extent, colors=2)
        patch = texture[top : top + extent, left : left + extent]
        patch[part > 0] = surface[part > 0]
        held = alpha[top : top + extent, left : left + extent]
        np.maximum(held, part, out=held)
    return texture, alpha


def _spread_centers(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) places of parts along a crooked line through the middle, in 0..1."""
    direction = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-0.3, 0.3, count)[:, None] * (np.cos(direction), np.sin(direction))
    return 0.5 + along + rng.uniform(-0.12, 0.12, (count, 2))


def _draw_bars(rng: np.random.Generator, alpha: np.ndarray, centers: np.ndarray) -> None:
    """Bars from part to part, and often legs from the last one."""
    size = len(alpha)
    bars = list(zip(centers[:-1], centers[1:], strict=True))
    if rng.random() < 0.6:
        foot = centers[-1]
        angles = rng.uniform(0, 2 * np.pi, int(rng.integers(2, 6)))
        reach = size * rng.uniform(0.15, 0.35)
        tips = foot + reach * np.stack([np.cos(angles), np.sin(angles)], -1)
        bars += [(foot, tip) for tip in np.clip(tips, 4, size - 4)]
    for begin, end in bars:
        thickness = int(rng.integers(3, 11))
        cv2.line(
            alpha,
            begin.astype(int).tolist(),
            end.astype(int).tolist(),
            1.0,
            thickness,
        )


def _blob(rng: np.random.Generator, size: int) -> np.ndarray:
    theta = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones_like(theta)
    for harmonic in range(1, 6):
        amplitude = rng.uniform(0, 0.35) / harmonic
        radius += amplitude * np.cos(harmonic * theta + rng.uniform(0, 2 * np.pi))
    radius *= 0.47 * size / radius.max()
    stretch = rng.uniform(0.6, 1.0)
    points = np.stack([radius * np.cos(theta), stretch * radius * np.sin(theta)], -1)
    return (points + size / 2).astype(np.int32)


def _polygon(rng: np.random.Generator, size: int) -> np.ndarray:
    corners = int(rng.integers(3, 8))
    theta = np.sort(
        rng.uniform(0, 2 * np.pi, corners) * 0.4 + np.arange(corners) * 2 * np.pi / corners
    )
    radius = size * rng.uniform(0.28, 0.47, corners)
    points = np.stack([radius * np.cos(theta), radius * np.sin(theta)], -1)
    return (points + size / 2).astype(np.int32)


def _draw_parts(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A body with two to five limbs, thick or thin, all within the canvas."""
    size = canvas.shape[0]
    center = np.array([size / 2, size / 2])
    axes = (int(size * rng.uniform(0.16, 0.28)), int(size * rng.uniform(0.14, 0.26)))
    angle = float(rng.uniform(0, 180))
    cv2.ellipse(canvas, (size // 2, size // 2), axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(2, 6))):
        direction = rng.uniform(0, 2 * np.pi)
        tip = center + size * rng.uniform(0.3, 0.44) * np.array(
            [np.cos(direction), np.sin(direction)]
        )
        thickness = max(2, int(size * rng.uniform(0.05, 0.14)))
        cv2.line(
            canvas, (size // 2, size // 2), tuple(int(v) for v in tip), 255, thickness, cv2.LINE_AA
        )
        if rng.random() < 0.5:
            radius = int(size * rng.uniform(0.05, 0.1))
            tip = np.clip(tip, radius, size - radius)
            cv2.circle(canvas, tuple(int(v) for v in tip), radius, 255, -1, cv2.LINE_AA)
