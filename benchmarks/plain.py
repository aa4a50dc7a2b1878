"""The plain way that the benchmarks compare with: a FITS file opened an item, fp32, default layout, loops."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from astropy.io import fits
from torch import Tensor, nn

import lensq
from lensq.networks import ResidualBlock
from lensq.survey import Survey


def simulated(folder: Path, objects: int, size: int) -> Survey:
    """A simulated survey in a folder, its images resized as in the published study."""
    lensq.simulate_survey(folder, objects, seed=1, progress=False)
    return lensq.read_survey(folder, size=size, resize=True, progress=False)


class FitsItems(torch.utils.data.Dataset):
    """Cutouts one by one: open the file with astropy, min-max to [0, 1], resize bilinearly.

    Args:
        survey: Names and folder; its packed store is not touched.
        rows: Row indices of the items.
    """

    def __init__(self, survey: Survey, rows: np.ndarray) -> None:
        self.paths = [survey.folder / "fits_data" / f"{survey.names[row]}_HSC-I_img.fits" for row in rows]
        self.names = [str(survey.names[row]) for row in rows]
        self.size = survey.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        with fits.open(self.paths[i]) as hdus:
            image = torch.from_numpy(np.nan_to_num(np.array(hdus[1].data, np.float32)))[None, None]
        image = (image - image.min()) / (image.max() - image.min())
        image = F.interpolate(image, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return image[0], self.names[i]


class _EnlargeFirst(nn.Module):
    """A residual block that enlarges before its convolutions, as mirrored ResNets usually do."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.main, self.shortcut, self.side = block.main, block.shortcut, block.enlarge_to

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, size=(self.side, self.side))
        return F.relu(self.main(x) + self.shortcut(x))


class _OneByOne(nn.Module):
    """A decoder that is called once for each mixture component, in a loop."""

    def __init__(self, decoder: nn.Module, clusters: int) -> None:
        super().__init__()
        self.decoder, self.clusters, self.stages = decoder, clusters, decoder.stages

    def forward(self, z: Tensor) -> Tensor:
        parts = z.unflatten(0, (-1, self.clusters)).unbind(1)
        return torch.stack([self.decoder(part) for part in parts], 1).flatten(0, 1)


def make_plain(vae: lensq.models.VAE, *, enlarge_first: bool) -> lensq.models.VAE:
    """Undo, in place, what makes a model fast: memory layout, whole mixture at once, late enlarging."""
    vae.to(memory_format=torch.contiguous_format)
    layout = {"memory_format": torch.contiguous_format}
    vae.encoder.register_forward_pre_hook(lambda _, given: (given[0].clone(**layout),))
    if enlarge_first:
        for sequence in [module for module in vae.decoder.modules() if isinstance(module, nn.Sequential)]:
            for name, block in sequence.named_children():
                if isinstance(block, ResidualBlock) and block.enlarge_to:
                    setattr(sequence, name, _EnlargeFirst(block))
    if "clusters" in vae.config.options:
        vae.decoder = _OneByOne(vae.decoder, vae.config.options["clusters"])
    return vae
