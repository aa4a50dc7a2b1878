"""The colours of all figures, as readers see them who lack one kind of cone.

A dichromat's view is a linear map of linear RGB (Machado, Oliveira and Fernandes 2009, table 1, severity 1);
distances are CIELAB's, in which 2.3 is the smallest difference that is noticed side by side.
"""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lensq.figures import style

SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
PALETTES = {
    "ordinary and lens": (list(style.COLOURS.values()), 50),
    "chosen and left": ([style.CHOSEN, style.LEFT], 15),
    "splits": (list(style.SPLIT_COLOURS.values()), 10),
    "cycle": (style.CYCLE, 10),
}
RGB_TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]


def seen(colour: str, sight: str) -> np.ndarray:
    """A colour in CIELAB, as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = RGB_TO_XYZ @ np.clip(SIGHT[sight] @ linear, 0, 1) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_white_and_black_are_where_they_belong():
    assert seen("white", "all cones") == pytest.approx([100, 0, 0], abs=0.1)
    assert seen("black", "deuteranopia") == pytest.approx([0, 0, 0], abs=0.1)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", PALETTES)
def test_colours_of_a_figure_differ(name, sight):
    colours, least = PALETTES[name]
    for first, second in combinations(colours, 2):
        distance = np.linalg.norm(seen(first, sight) - seen(second, sight))
        assert distance > least, f"{first} and {second} are {distance:.0f} apart"
