"""What `bench.fast` found, drawn: tokens a second over how many are spoken at once, and time by stage."""

from collections.abc import Sequence
from typing import Any

WIDTH, LEFT, ROW = 760, 150, 30
COLOURS = {
    "tokens": "#1f6f8b",
    "mel": "#b5541c",
    "sound": "#5a7d2a",
    "watermark": "#7a4b94",
    "rest": "#8a8a8a",
}
KERNELS = {"fp32": "#1f6f8b", "int8": "#b5541c", "bf16": "#b5541c"}


def pictures(found: Sequence[Any], device: str) -> dict[str, str]:
    """File name to SVG."""
    suffix = device.partition(":")[0]
    return {f"speed-tokens-{suffix}.svg": _tokens(found), f"speed-stages-{suffix}.svg": _stages(found)}


def _svg(height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>'


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.0f}" width="{max(0.5, width):.1f}" height="{ROW - 10}" fill="{colour}"/>'
    )


def _tokens(found: Sequence[Any]) -> str:
    """A bar for each kernel and number at once, the package's on top."""
    parts, y = [], 10.0
    for one in found:
        bars = [("the package, 1 at once", one.package_tokens, "#8a8a8a")]
        bars += [
            (f"{kernel}, {count} at once", speed, KERNELS[kernel])
            for kernel, speeds in one.tokens.items()
            for count, speed in speeds.items()
        ]
        most = max(speed for _, speed, _ in bars)
        parts.append(
            _text(
                10, y + 14, f"{one.kind}: speech tokens a second (25 are a second of speech)", weight="bold"
            )
        )
        y += 24
        for label, speed, colour in bars:
            length = (WIDTH - LEFT - 130) * speed / most
            parts += [_text(LEFT - 8, y + 14, label, anchor="end"), _bar(LEFT, y, length, colour)]
            told = f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"
            ratio = f"{told} ({speed / one.package_tokens:.1f} times)"
            parts.append(_text(LEFT + length + 6, y + 14, ratio))
            y += ROW
        y += 14
    return _svg(y, parts)


def _stages(found: Sequence[Any]) -> str:
    """A bar for each way to speak, made of its stages."""
    parts, y = [], 10.0
    for number, (stage, colour) in enumerate(COLOURS.items()):
        left = LEFT + 110 * number
        parts += [_bar(left, y, 14, colour), _text(left + 20, y + 14, stage)]
    y += ROW + 4
    for one in found:
        parts.append(_text(10, y + 14, f"{one.kind}: seconds of work for a second of sound", weight="bold"))
        y += 24
        most = max(way.wall_seconds / way.sound_seconds for way in one.ways)
        for way in one.ways:
            parts.append(_text(LEFT - 8, y + 14, way.name, anchor="end"))
            x = float(LEFT)
            for stage, colour in COLOURS.items():
                length = (WIDTH - LEFT - 130) * way.stages[stage] / way.sound_seconds / most
                parts.append(_bar(x, y, length, colour))
                x += length
            each = way.wall_seconds / way.sound_seconds
            ratio = way.real_time / one.ways[0].real_time
            parts.append(_text(x + 6, y + 14, f"{each:.2f} ({ratio:.1f} times)"))
            y += ROW
        y += 14
    return _svg(y, parts)
