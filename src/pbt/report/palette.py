"""Colors of the figures, distinguishable with any color vision, on light and on dark backgrounds."""

WINNER = "#d55e00"
POPULATION = "#2f86c5"
BAND = "rgba(47,134,197,0.22)"
INITIAL = "#cc79a7"
FAILED = "#b2182b"
OTHERS = "#9aa0a6"
QUIET = "rgba(128,134,142,0.38)"
RING = "#808080"

_CIVIDIS = ("#00224e", "#1f3a70", "#414d6b", "#5d616e", "#7a7775", "#958f78", "#b3a772", "#d3c164", "#fee838")
"""Equally spaced colors of matplotlib's cividis."""


def cividis(position: float) -> str:
    """The interpolated color of cividis at a position from 0 to 1."""
    at = min(max(position, 0.0), 1.0) * (len(_CIVIDIS) - 1)
    low = min(int(at), len(_CIVIDIS) - 2)
    pairs = [(int(_CIVIDIS[low][i : i + 2], 16), int(_CIVIDIS[low + 1][i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (at - low) * (b - a)):02x}" for a, b in pairs)
