"""One point source or two? What was done before networks: fit both to each cutout, and compare.

A cutout is fitted by a constant sky, an elliptical galaxy, and one point source or two. All are mixtures of
Gaussians (Hogg & Lang 2013, PASP 125, 719), so that a galaxy convolved with the point spread function, and
all derivatives, have a closed form. Many cutouts are fitted at once, by the method of Levenberg (1944) and
Marquardt (1963) within bounds. The point spread function is that of the survey's stars; its width may differ
from object to object, as theirs does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from lensq.classifiers.injection import point_sources
from lensq.models.batches import workers
from lensq.survey.images import PIXEL_SCALE, noise_level

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

_DISC = ((0.31, 0.42), (1.6, 0.58))  # variance and share of two Gaussians: an exponential disc of scale one
_SCALES = (2.5, 3.0, 12.0)  # HSC pixels, of a galaxy: least, first, most; a smaller one is a point source
_WIDTHS = np.geomspace(1.0, 6.0, 6)  # HSC pixels, of the Gaussians that a point source may be made of
_SPREAD = 0.05  # standard deviation of the factor by which its width differs from object to object
_STEPS, _TOLERANCE = 30, 0.1  # a fit ends where the next step promises less
_MOST = 1e6  # times the noise, of a pixel; its square must not overflow
_AT_ONCE = 1024

ENOUGH = 300.0
"""Difference in chi-squared from which on a second point source is beyond doubt."""


@dataclass(frozen=True)
class PointFits:
    """Fits of a galaxy with one point source and with two.

    Attributes:
        psf: variance (pixels squared) and share of each Gaussian of the point spread function.
        pixel: HSC pixels a pixel.
        window: HSC pixels from the centre that are fitted.
        misfit: share of a pixel's flux that counts as noise: the point spread function is not known better.
    """

    psf: tuple[tuple[float, float], ...]
    pixel: float = 1.0
    window: float = 8.0
    misfit: float = 0.02

    @classmethod
    def of(cls, survey: Survey, rows: np.ndarray | None = None) -> PointFits:
        """With the point spread function of a survey's stars.

        Args:
            survey: the survey, whose reference band is fitted.
            rows: (n,) row numbers of the objects that hold the stars; those of the train split by default.

        Raises:
            ValueError: none of its objects looks like a star.
        """
        stars, pixel = point_sources(survey, rows), survey.pixel_scale / PIXEL_SCALE
        star = (stars if stars.dim() == 3 else stars[:, survey.reference]).median(0).values.double().numpy()
        offset = np.arange(len(star)) - (len(star) - 1) / 2
        radius = np.hypot(offset[:, None], offset)
        within = radius * pixel <= cls.window
        variances = (_WIDTHS / pixel) ** 2
        gaussians = np.exp(-0.5 * radius[within][:, None] ** 2 / variances) / (2 * np.pi * variances)
        wings = np.full((len(gaussians), 1), 1e-3)  # flat here: they pass for sky
        shares = nnls(np.hstack([gaussians, wings]), star[within])[0][:-1]
        if not shares.any():
            raise ValueError("no object of the train tiles has the light of a star: the images may be empty")
        kept = shares > 0.03 * shares.sum()
        psf = zip(variances[kept].tolist(), (shares[kept] / shares[kept].sum()).tolist(), strict=True)
        return cls(tuple(psf), pixel)

    def fit(self, images: Tensor, mask: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Least chi-squared with one point source and with two, and the parameters of the latter.

        Args:
            images: (B, S, S) flux.
            mask: bool, as large, True where a pixel is real.
            noise: (B,) of the sky, in the units of the images.

        Returns:
            (B,), (B,), and (B, 14): the sky; the width of point sources over that of the survey's; of the
            galaxy x and y from the centre of the image (pixels), log of the scale (pixels), two ellipticities
            and flux; x, y and flux of each point source. Sky and fluxes are in units of the noise.
        """
        grid = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
        near = grid.abs() * self.pixel <= self.window
        data, real = (part[:, near][:, :, near] for part in (images, mask))
        data = torch.where(real, data, 0) / torch.where(noise > 0, noise, 1)[:, None, None]
        data = data.clamp(-_MOST, _MOST)
        within = torch.hypot(grid[near][:, None], grid[near]) * self.pixel <= self.window
        weight = (real & within) / (1 + (self.misfit * data.clamp(min=0)) ** 2)
        cutouts = _Cutouts(self, data, weight, grid[near])
        one, theta = cutouts.minimise(cutouts.start())
        ends = [cutouts.minimise(start) for start in (cutouts.add_source(theta), _galaxy_as_source(theta))]
        chi, theta = (torch.stack(part) for part in zip(*ends, strict=True))
        two, best = chi.min(0)
        return one, two, theta[best, torch.arange(len(best))]

    def score(self, survey: Survey, rows: np.ndarray) -> np.ndarray:
        """How much better two point sources fit than one: (n,) differences of chi-squared, 0 or more.

        Args:
            survey: the survey, whose reference band is fitted.
            rows: (n,) row numbers.
        """

        @torch.inference_mode()
        def scored(part: np.ndarray) -> Tensor:
            images, mask = map(torch.from_numpy, map(np.array, survey.in_reference_band(part)))
            one, two, _ = self.fit(images, mask, noise_level(images, mask))
            return one - two

        with workers(torch.device("cpu")) as run:
            parts = np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
            return torch.cat(list(run(scored, parts))).numpy()


def with_point_fits(log_odds: np.ndarray, improvement: np.ndarray) -> np.ndarray:
    """Log odds of a detector of lenses, lowered where one point source and a galaxy are fit enough.

    A lens has a second image. Where that betters chi-squared by less than `ENOUGH`, the odds fall in
    proportion, to a thousandth at most; above it nothing is gained, since a star beside a quasar betters it
    as much.

    Args:
        log_odds: (N,) of a detector.
        improvement: (N,) of `PointFits.score`, of the same objects.
    """
    return np.asarray(log_odds) + np.log(np.clip(improvement / ENOUGH, 1e-3, 1))


def _galaxy_as_source(theta: Tensor) -> Tensor:
    """A point source in the galaxy's place, and a fainter galaxy between the two point sources."""
    changed = theta.clone()
    changed[:, 2:4] = (theta[:, 2:4] + theta[:, 8:10]) / 2
    changed[:, 5:8] *= torch.tensor([0, 0, 0.3])
    return torch.cat([changed, theta[:, [2, 3, 7]] * torch.tensor([1, 1, 0.7])], 1)


@dataclass(frozen=True)
class _Cutouts:
    """Cutouts (B, s, s) in units of the noise, one over the variance of their pixels, and places (s,)."""

    fits: PointFits
    data: Tensor
    weight: Tensor
    grid: Tensor

    def start(self) -> Tensor:
        """A point source at the peak, and a galaxy of a third of the flux around it."""
        blank = torch.tensor([0, 1, 0, 0, np.log(_SCALES[1] / self.fits.pixel), 0, 0, 0]).float()
        theta = self.add_source(blank.repeat(len(self.data), 1))
        theta[:, 2:4] = theta[:, 8:10]
        peak = self.data.amax((1, 2)).clamp(min=1)
        theta[:, 7], theta[:, 10] = 8 / self.fits.pixel**2 * peak, 16 / self.fits.pixel**2 * peak
        return theta

    def add_source(self, theta: Tensor) -> Tensor:
        """Another point source, still without flux, where it would better the fit most."""
        offset = torch.arange(-4.0, 5)
        squared = offset[:, None] ** 2 + offset**2
        kernel = sum(share / v * torch.exp(-0.5 * squared / v) for v, share in self.fits.psf)[None, None]
        rest = self.weight * (self.data - self.model(theta)[0])
        known = F.conv2d(self.weight[:, None], kernel.square(), padding="same").clamp(min=1e-9)
        gain = (F.conv2d(rest[:, None], kernel, padding="same") / known.sqrt())[:, 0]
        within = torch.hypot(self.grid[:, None], self.grid) * self.fits.pixel <= self.fits.window - 1
        place = torch.where(within, gain, -torch.inf).flatten(1).argmax(1)
        x, y = self.grid[place % len(self.grid)], self.grid[place // len(self.grid)]
        return torch.cat([theta, torch.stack([x, y, torch.zeros_like(x)], 1)], 1)

    def model(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The model (B, s, s) and its derivatives (P, B, s, s) by the parameters."""
        by = self.data.new_zeros(theta.shape[1], *self.data.shape)
        by[0] = 1
        self._add_galaxy(theta, by)
        for first in range(8, theta.shape[1], 3):
            self._add_source(theta, by, first)
        linear = [0, 7, *range(10, theta.shape[1], 3)]
        return torch.einsum("kbij,bk->bij", by[linear], theta[:, linear]), by

    def _add_galaxy(self, theta: Tensor, by: Tensor) -> None:
        """Fill in the derivatives by what the galaxy depends on."""
        _, width, x, y, size, e1, e2, flux = (part[:, None, None] for part in theta[:, :8].unbind(1))
        dx, dy = self.grid - x, self.grid[:, None] - y
        for disc, part in _DISC:
            square = disc * torch.exp(2 * size)
            for variance, share in self.fits.psf:
                a, c = (square * (1 + e) + variance * width**2 for e in (e1, -e1))
                b = square * e2
                det = a * c - b**2
                ux, uy = (c * dx - b * dy) / det, (a * dy - b * dx) / det
                light = part * share / (2 * np.pi * det.sqrt()) * torch.exp(-0.5 * (dx * ux + dy * uy))
                xx, yy = light * (ux**2 - c / det), light * (uy**2 - a / det)  # twice those by a and by c
                xy = light * (ux * uy + b / det)  # that by b
                by[1] += variance * width * (xx + yy)
                by[2] += light * ux
                by[3] += light * uy
                by[4] += square * ((1 + e1) * xx + (1 - e1) * yy + 2 * e2 * xy)
                by[5] += 0.5 * square * (xx - yy)
                by[6] += square * xy
                by[7] += light
        by[1:7] *= flux

    def _add_source(self, theta: Tensor, by: Tensor, first: int) -> None:
        """Fill in the derivatives by what a point source depends on; its parameters begin at `first`."""
        width, x, y, flux = (theta[:, k, None, None] for k in (1, first, first + 1, first + 2))
        dx, dy = self.grid - x, self.grid[:, None] - y
        for variance, share in self.fits.psf:
            v = variance * width**2
            light = torch.exp(-0.5 * dx**2 / v) * (share / (2 * np.pi * v) * torch.exp(-0.5 * dy**2 / v))
            by[first + 2] += light
            light = light * flux
            by[first] += light * (dx / v)
            by[first + 1] += light * (dy / v)
            by[1] += light * ((dx**2 / v - 2) / width + dy**2 / v / width)

    def evaluate(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Chi-squared (B,), and half of its descent and of its curvature, (B, P) and (B, P, P)."""
        model, by = self.model(theta)
        rest, weight = (self.data - model).flatten(1), self.weight.flatten(1)
        slopes = by.flatten(2).transpose(0, 1)
        weighted = slopes * weight[:, None]
        descent, curvature = (weighted @ rest[..., None])[..., 0].double(), (weighted @ slopes.mT).double()
        off = (theta[:, 1].double() - 1) / _SPREAD
        descent[:, 1] -= off / _SPREAD
        curvature[:, 1, 1] += _SPREAD**-2
        return (weight * rest**2).sum(1).double() + off**2, descent, curvature

    def minimise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Least chi-squared (B,), never above that of the start, and where it is."""
        edge = self.fits.window / self.fits.pixel
        least, _, most = np.log(np.array(_SCALES) / self.fits.pixel).tolist()
        place, ellipticity, light = (-edge, edge), (-0.6, 0.6), (0.0, np.inf)
        bounds = [(-np.inf, np.inf), (0.5, 2.0), place, place, (least, most), ellipticity, ellipticity, light]
        bounds += 2 * [place, place, light]
        low, high = torch.tensor(bounds[: theta.shape[1]]).unbind(1)
        cutouts, left, state = self, torch.arange(len(theta)), [*self.evaluate(theta), theta.clone()]
        chi, found = state[0].clone(), theta.clone()
        damping = torch.full_like(chi, 1e-2)
        for _ in range(_STEPS):
            _, descent, curvature, theta = state
            free = ~((theta <= low) & (descent <= 0) | (theta >= high) & (descent >= 0))
            matrix = curvature * (free[:, :, None] & free[:, None, :])
            diagonal = matrix.diagonal(dim1=1, dim2=2)
            matrix = matrix + torch.diag_embed(damping[:, None] * diagonal + (diagonal < 1e-9))
            step = torch.linalg.solve_ex(matrix, descent * free)[0]
            going = (step * descent * free).sum(1) > _TOLERANCE
            tried = (theta + step.float()).clamp(low, high)
            after = [*cutouts.evaluate(tried), tried]
            better = after[0] < state[0]
            damping = torch.where(better, damping / 5, damping * 4).clamp(1e-6, 1e6)
            for new, old in zip(after, state, strict=True):
                old[better] = new[better]
            chi[left], found[left] = state[0], state[3]
            if not going.any():
                break
            left, damping, *state = (part[going] for part in (left, damping, *state))
            cutouts = replace(cutouts, data=cutouts.data[going], weight=cutouts.weight[going])
        return chi, found
