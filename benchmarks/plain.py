"""The plain way that the benchmarks compare with: a FITS file opened an item, fp32, default layout, loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lensq
from lensq.models.batches import Batch
from lensq.models.networks import ResidualBlock
from lensq.models.variants import VAE
from lensq.scores.density import LatentDensity
from lensq.scores.residual import central_residual

if TYPE_CHECKING:
    from lensq.survey.survey import Survey


def simulated(folder: Path, objects: int, size: int) -> Survey:
    """A simulated survey in a folder, its images resized as in the published study."""
    lensq.simulate_survey(folder, objects, seed=1, progress=False)
    return lensq.read_survey(folder, size=size, resize=True, progress=False)


class Items(torch.utils.data.Dataset):
    """Cutouts one by one: NaN to 0, min-max to [0, 1], resized bilinearly.

    Args:
        images: Gives the pixels (h, w) of an item.
        names: Of the items.
        size: Side of the result in pixels.
    """

    def __init__(self, images: Callable[[int], np.ndarray], names: Sequence[str], size: int) -> None:
        self.images, self.names, self.size = images, [str(name) for name in names], size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        image = torch.from_numpy(np.nan_to_num(self.images(i)))[None, None]
        image = (image - image.min()) / (image.max() - image.min())
        image = F.interpolate(image, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return image[0], self.names[i]


def fits_items(survey: Survey, rows: np.ndarray) -> Items:
    """Items of a survey, each opened with astropy; the packed store is not touched."""
    from astropy.io import fits

    folder, names = survey.folder / "fits_data", survey.names[rows]

    def read(i: int) -> np.ndarray:
        with fits.open(folder / f"{names[i]}_HSC-I_img.fits") as hdus:
            return np.array(hdus[1].data, np.float32)

    return Items(read, names, survey.size)


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


def make_plain(vae: VAE, *, enlarge_first: bool) -> VAE:
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


def _step(vae: VAE, optimizer, x: Tensor, generator, step: int, objects: int, half: bool = False) -> Tensor:
    """One step of training on images without a mask, its forward pass in bf16 if half; the loss."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        terms = vae(x, torch.ones_like(x, dtype=torch.bool), generator=generator)
        loss, _ = vae.objective.loss(terms, step=step, dataset_size=objects)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1000.0)
    optimizer.step()
    return loss


def train_plainly(vae: VAE, items: Items, epochs: int, device: str = "cpu") -> list[float]:
    """Train with Adam at 1e-3 and batches of 64; seconds of each epoch."""
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(items, 64, shuffle=True, drop_last=True, generator=generator)
    optimizer = torch.optim.Adam([p for p in vae.to(device).parameters() if p.requires_grad], lr=1e-3)
    first = [x.to(device) for (x, _), _ in zip(loader, range(8), strict=False)]
    vae.prepare([(x, torch.ones_like(x, dtype=torch.bool)) for x in first])
    seconds, step = [], 0
    for _ in range(epochs):
        start = time.perf_counter()
        vae.train()
        for x, _names in loader:
            _step(vae, optimizer, x.to(device), generator, step, len(items))
            step += 1
        seconds.append(time.perf_counter() - start)
    return seconds


def train_carefully(vae: VAE, images: Tensor, epochs: int) -> list[float]:
    """Train with care, but eagerly; seconds of each epoch.

    Images (N, 1, S, S) are on their device, channels last, in bf16, in batches of 256; the optimiser is
    fused, and nothing waits within an epoch.
    """
    vae.to(images.device, memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3, fused=True)
    vae.prepare([(images[:256], torch.ones_like(images[:256], dtype=torch.bool))])
    generator = torch.Generator(images.device).manual_seed(0)
    seconds, step = [], 0
    for _ in range(epochs):
        start = time.perf_counter()
        vae.train()
        for rows in torch.randperm(len(images), device=images.device).split(256):
            loss = _step(vae, optimizer, images[rows], generator, step, len(images), half=True)
            step += 1
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds


def score_plainly(vae: VAE, items: Items, device: str = "cpu") -> pd.DataFrame:
    """The scores and latent vectors that `lensq.score` has too, concatenated batch by batch."""
    table = pd.DataFrame()
    vae = vae.to(device).eval()
    density = LatentDensity(vae.reference[0])
    with torch.no_grad():
        for x, names in torch.utils.data.DataLoader(items, batch_size=64):
            x = x.to(device)
            terms = vae(x, torch.ones_like(x, dtype=torch.bool))
            scores = {name: terms[name] for name in ("reconstruction", *vae.objective.extras)}
            scores["kl"] = terms["kl"].sum(1)
            scores["central_residual"] = central_residual(
                x - terms["mean"], torch.ones_like(x, dtype=torch.bool)
            )
            scores["mahalanobis"], scores["knn"] = density(terms["mu"])
            part = pd.DataFrame({name: values.cpu().numpy() for name, values in scores.items()})
            part.insert(0, "name", names)
            columns = {
                f"{name}_{d}": terms[name][:, d].cpu().numpy()
                for name in ("mu", "logvar", "kl")
                for d in range(terms["mu"].shape[1])
            }
            table = pd.concat([table, part.assign(**columns)])
    return table


def mean_squared_error(vae: VAE, batches: Iterable[Batch]) -> float:
    """Of reconstructions at the posterior mean, over valid pixels, on the batches' device."""
    vae.eval()
    squares, count = 0.0, 0
    with torch.inference_mode():
        for x, mask, _ in batches:
            error = (vae.to(x.device)(x, mask)["mean"] - x)[mask]
            squares, count = squares + float(error.square().sum()), count + error.numel()
    return squares / count
