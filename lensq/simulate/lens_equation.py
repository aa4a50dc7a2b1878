"""The lens equation of a singular isothermal ellipsoid (SIE) with external shear, for many lenses at once.

The deflection of an isothermal lens depends on the direction only, not on the distance, so that the
equation in the plane becomes one in the polar angle, which is scanned and refined for a whole batch of
lenses together: some hundred times faster than one lens after the other. Conventions (Einstein radius of
the intermediate axis, signs of the shear) are lenstronomy's, against which the tests compare.
"""

from dataclasses import dataclass

import numpy as np

_SCAN = 360  # directions in which the equation is evaluated; closer pairs of images count as none
_STEPS = 36  # bisections of a cell of one degree: 3e-13 radians


@dataclass(frozen=True)
class SIEWithShear:
    """Lenses at the origin; each field is a number or an array of one shape.

    Attributes:
        einstein_radius: arcsec, sqrt(product of the semi-axes of the critical curve's ellipse).
        axis_ratio: q of the mass, 0 < q < 1.
        angle: of the major axis, radians from x towards y.
        shear: external shear.
        shear_angle: radians from x towards y.
    """

    einstein_radius: np.ndarray | float
    axis_ratio: np.ndarray | float
    angle: np.ndarray | float
    shear: np.ndarray | float
    shear_angle: np.ndarray | float

    @property
    def shear_components(self) -> tuple:
        """Shear along x and along the diagonal."""
        return self.shear * np.cos(2 * self.shear_angle), self.shear * np.sin(2 * self.shear_angle)

    def __getitem__(self, rows) -> "SIEWithShear":
        """The lenses of these rows."""
        return SIEWithShear(*(np.asarray(value)[rows] for value in vars(self).values()))


def _isothermal_deflection(cosine, sine, lens: SIEWithShear):
    """Deflection of the SIE alone in the direction (cosine, sine); Kormann et al. (1994), equation 27."""
    q = lens.axis_ratio
    root = np.sqrt(1 - q**2)
    c, s = np.cos(lens.angle), np.sin(lens.angle)
    u, v = c * cosine + s * sine, c * sine - s * cosine
    radius = np.sqrt(q**2 * u**2 + v**2)
    scale = lens.einstein_radius * np.sqrt(q) / root
    along, across = scale * np.arctan(root * u / radius), scale * np.arctanh(root * v / radius)
    return c * along - s * across, s * along + c * across


def ray_shooting(x, y, lens: SIEWithShear):
    """Where the rays seen at (x, y) come from in the source plane, arcsec."""
    radius = np.hypot(x, y)
    ax, ay = _isothermal_deflection(x / radius, y / radius, lens)
    g1, g2 = lens.shear_components
    return x - ax - g1 * x - g2 * y, y - ay - g2 * x + g1 * y


def magnification(x, y, lens: SIEWithShear):
    """Signed magnification at (x, y): 1 / ((1 - kappa)^2 - |gamma|^2)."""
    q, r2 = lens.axis_ratio, x**2 + y**2
    c, s = np.cos(lens.angle), np.sin(lens.angle)
    u, v = c * x + s * y, c * y - s * x
    kappa = lens.einstein_radius * np.sqrt(q) / 2 / np.sqrt(q**2 * u**2 + v**2)
    g1, g2 = lens.shear_components
    g1, g2 = g1 - kappa * (x**2 - y**2) / r2, g2 - kappa * 2 * x * y / r2
    return 1 / ((1 - kappa) ** 2 - g1**2 - g2**2)


def solve(source_x: np.ndarray, source_y: np.ndarray, lens: SIEWithShear, steps: int = _STEPS):
    """Images of point sources, one behind each lens.

    Args:
        source_x: (N,) arcsec.
        source_y: (N,) arcsec.
        lens: N lenses, fields of shape (N,).
        steps: Bisections of a cell of one degree; the default is exact to rounding.

    Returns:
        `(row, x, y)`, each (M,): the lens that an image belongs to, in rising order, and its position in
        arcsec. The image in the singular centre has no light and is not given.
    """

    def off(phi, rows, wide):
        """Cross product of the two sides of the equation, zero at an image, and the distance there."""
        chosen = lens[rows, None] if wide else lens[rows]
        bx, by = (b[rows, None] if wide else b[rows] for b in (source_x, source_y))
        cosine, sine = np.cos(phi), np.sin(phi)
        ax, ay = _isothermal_deflection(cosine, sine, chosen)
        g1, g2 = chosen.shear_components
        px, py = (1 - g1) * cosine - g2 * sine, (1 + g1) * sine - g2 * cosine
        wx, wy = bx + ax, by + ay
        return px * wy - py * wx, (px * wx + py * wy) / (px**2 + py**2)

    phi = np.linspace(0, 2 * np.pi, _SCAN + 1)
    values, _ = off(phi, np.arange(len(source_x)), True)
    row, cell = np.nonzero(np.signbit(values[:, :-1]) != np.signbit(values[:, 1:]))
    low, high, at_low = phi[cell], phi[cell + 1], np.signbit(values[row, cell])
    for _ in range(steps):
        middle = (low + high) / 2
        same = np.signbit(off(middle, row, False)[0]) == at_low
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    _, distance = off(low, row, False)
    real = distance > 0
    row, low, distance = row[real], low[real], distance[real]
    return row, distance * np.cos(low), distance * np.sin(low)
