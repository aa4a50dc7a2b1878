"""What a reconstruction leaves over in the centre of an image, where the lensed images of a quasar are."""

import torch
from torch import Tensor

CENTRAL_RADIUS = 10.0
"""Radius of the disc of `central_residual` in native pixels: 1.7 arcsec at HSC's 0.168 arcsec a pixel."""


def central_residual(residual: Tensor, mask: Tensor, radius: float = CENTRAL_RADIUS) -> Tensor:
    """Mean squared residual in the centre, less what sky noise alone would give.

    The noise is 1.4826 times the median distance below the median of the border (every fourth pixel outside
    0.3 S from the centre), which neighbours, seen or missed by the model, hardly move. Pixels behind the mask
    do not count; without a valid pixel in the disc the score is 0. Of several bands it is the mean over those
    with a valid pixel in the disc.

    Args:
        residual: (B, C, S, S) image minus reconstruction.
        mask: (B, C, S, S) bool, True where real.
        radius: Radius of the disc in pixels of the residual.

    Returns:
        (B,) in squared units of the residual; negative where the centre is quieter than the border.
    """
    offset = torch.arange(residual.shape[-1], device=residual.device) - (residual.shape[-1] - 1) / 2
    disc = (offset[:, None] ** 2 + offset**2 <= radius**2).flatten()
    border = (torch.maximum(offset[:, None].abs(), offset.abs()) > 0.3 * residual.shape[-1]).flatten()
    flat, real = (pixels.flatten(0, 1).flatten(1) for pixels in (residual, mask))
    inside = real & disc
    central = torch.where(inside, flat.square(), 0).sum(1) / inside.sum(1).clamp(min=1)
    chosen = border.nonzero()[::4, 0]
    edge = torch.where(real.index_select(1, chosen), flat.index_select(1, chosen), torch.nan)
    level = edge.nanmedian(1, keepdim=True).values
    below = torch.where(edge <= level, level - edge, torch.nan).nanmedian(1).values
    noise = (1.4826 * below).nan_to_num(0.0)
    seen = inside.any(1)
    score = torch.where(seen, central - noise.square(), 0).view(residual.shape[:2])
    return score.sum(1) / seen.view(residual.shape[:2]).sum(1).clamp(min=1)
