"""How usual a latent vector is among those of the training set."""

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

NEIGHBOURS = 10
"""Neighbours whose mean distance is the `knn` score."""


class LatentDensity:
    """Density of the train posterior means, by a shrunk covariance and by nearest neighbours.

    The covariance is shrunk towards a sphere (Ledoit & Wolf 2004, J. Multivariate Anal. 88, 365), so that
    collapsed dimensions and small samples leave it invertible. Train objects that are in the sample are their
    own neighbours, which makes their `knn` a little low; compare scores on other splits.

    Args:
        means: (n, D) posterior means of train objects.
    """

    def __init__(self, means: Tensor) -> None:
        values = means.detach().cpu().numpy().astype(np.float64)
        covariance = ledoit_wolf(values)[0]
        whitening = np.linalg.cholesky(np.linalg.inv(covariance + 1e-12 * np.eye(len(covariance))))
        self.centre = torch.from_numpy(values.mean(0)).to(means.device)
        self.whitening = torch.from_numpy(whitening).to(means.device)
        self.sample = (means.double() - self.centre) @ self.whitening
        self.squares = self.sample.square().sum(1)

    def __call__(self, mu: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means (B, D) to `mahalanobis` (B,) and `knn` (B,)."""
        white = (mu.double() - self.centre) @ self.whitening
        squares = white.square().sum(1)
        # Double precision: the subtraction would cancel in single, and differently from batch to batch.
        distances = (squares[:, None] + self.squares - 2 * white @ self.sample.T).clamp(min=0)
        nearest = distances.topk(min(NEIGHBOURS, len(self.sample)), largest=False).values.sqrt()
        return squares.sqrt().float(), nearest.mean(1).float()
