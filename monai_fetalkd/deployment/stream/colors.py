"""One colour a plane, the same in overlay and timeline."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NO_PLANE", "plane_colors"]

# Okabe & Ito's, told apart with any colour vision; black is left out, it would vanish on a frame
_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")

NO_PLANE = "#888888"


def plane_colors(names: Sequence[str]) -> dict[str, str]:
    """Colours of the planes, which repeat after seven.

    References:
        Okabe, M. & Ito, K. (2008). Color Universal Design. https://jfly.uni-koeln.de/color/

    Example:
        >>> plane_colors(["abdomen", "brain"])
        {'abdomen': '#E69F00', 'brain': '#56B4E9'}
    """
    return {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(names)}
