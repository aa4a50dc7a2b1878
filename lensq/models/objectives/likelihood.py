"""The Gaussian likelihood of an image given its reconstruction, over real pixels only."""

import math

import torch
from torch import Tensor, nn


class GaussianLikelihood(nn.Module):
    """Independent Gaussian noise of one scale on every pixel.

    With x the image, m the reconstruction and sigma the noise scale, the negative log likelihood of a
    pixel, in nats, is (x - m)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2. No additive constant is
    dropped, so models with different noise scales compare. Sum of squares plus w KL, the loss of many
    published variational autoencoders, is w times this likelihood with sigma = sqrt(w / 2) plus KL, up to a
    constant: w = 0.005 means sigma = 0.05, and w = 0.01 means sigma = 0.0707.

    Args:
        scale: noise scale in units of the preprocessed pixel.

    Raises:
        ValueError: if the scale is not positive and finite.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"noise_scale={scale} must be positive and finite")
        self.register_buffer("log_scale", torch.tensor(math.log(scale)))

    def forward(self, images: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
        """Negative log likelihood per object: C S^2 times the mean over its real pixels, in nats.

        The mean over real pixels makes a padded image comparable with a full one. The pixels of all C bands
        count alike: `lensq.survey.images.Preprocessing` has given the bands the same noise. An image without
        any real pixel gets 0.

        Args:
            images: (B, C, S, S).
            mean: reconstructions, (B, C, S, S) or (B, K, C, S, S).
            mask: (B, C, S, S) bool, True for real pixels.

        Returns:
            (B,) or (B, K).
        """
        if mean.dim() == 5:
            images, mask = images.unsqueeze(1), mask.unsqueeze(1)
        squares = torch.where(mask, images - mean, 0).square().sum(dim=(-3, -2, -1))
        real = mask.sum(dim=(-3, -2, -1))
        pixels = math.prod(images.shape[-3:])
        nll = 0.5 * squares * torch.exp(-2 * self.log_scale) / real.clamp(min=1)
        constant = (self.log_scale + 0.5 * math.log(2 * math.pi)) * (real > 0)
        return pixels * (nll + constant)
