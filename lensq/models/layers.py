"""The architecture of a model as a table: layers, what they give, how many parameters they have."""

import copy

import pandas as pd
import torch
from torch import Tensor, nn

from lensq.models.networks import ResidualBlock
from lensq.models.objectives.features import FeatureNetwork
from lensq.models.variants import VAE

_WITH_THE_LAYER_BEFORE = (nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU)


def _described(name: str, module: nn.Module) -> str:
    """Kind of a layer, with its kernel, stride and place if they say something."""
    kind = type(module).__name__
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        kind += f" {module.kernel_size[0]}x{module.kernel_size[1]}"
    stride = getattr(module.main[0] if isinstance(module, ResidualBlock) else module, "stride", (1,))[0]
    kind += f", stride {stride}" if stride > 1 else ""
    kind += ", enlarged" if getattr(module, "enlarge_to", None) else ""
    return kind if name.isdigit() else f"{name}: {kind}"


def _parts(vae: VAE) -> list[tuple[str, str, nn.Module]]:
    """Part, name and module of each layer, by part in the order in which an image meets them."""
    owners = [("encoder", vae.encoder.stages), ("posterior", vae.objective)]
    owners += [("decoder", vae.decoder.start), ("decoder", vae.decoder.stages)]
    parts = [(part, *child) for part, owner in owners for child in owner.named_children()]
    frozen = [("loss", name, module) for _, name, module in parts if isinstance(module, FeatureNetwork)]
    return [part for part in parts if not isinstance(part[2], FeatureNetwork)] + frozen


def _by(sides: torch.Size) -> str:
    return "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(map(str, sides)) or "1"


def layer_table(vae: VAE) -> pd.DataFrame:
    """What a model is made of; normalisations and activations stand with the layer before them.

    Args:
        vae: any variant; it is left as it was.

    Returns:
        One row a layer: `part` ("encoder", "posterior", "decoder", "loss", "parameters" for those that belong
        to no layer, such as the means of a mixture's prior), `layer`, `output` (shape for one image, channels
        first; for a mixture, a row a cluster), `parameters` (trained ones; those of a frozen network are
        none). The last row is their sum.
    """
    vae = copy.deepcopy(vae).cpu().eval()
    shapes: dict[nn.Module, str] = {}

    def keep(module: nn.Module, _: object, output: Tensor | tuple[Tensor, ...]) -> None:
        shapes[module] = _by((output[0] if isinstance(output, tuple) else output).shape[1:])

    for _, _, module in _parts(vae):
        module.register_forward_hook(keep)
    size = (1, vae.config.bands, vae.config.size, vae.config.size)
    with torch.inference_mode():
        vae(torch.zeros(size), torch.ones(size, dtype=torch.bool))
    rows: list[dict] = []
    for part, name, module in _parts(vae):
        count = sum(values.numel() for values in module.parameters())
        if isinstance(module, _WITH_THE_LAYER_BEFORE):
            rows[-1]["layer"] += f", {type(module).__name__}"
            rows[-1]["parameters"] += count
        else:
            row = {"part": part, "layer": _described(name, module), "output": shapes[module]}
            rows.append(row | {"parameters": count})
    for name, values in vae.objective.named_parameters(recurse=False):
        row = {"part": "parameters", "layer": name, "output": _by(values.shape)}
        rows.append(row | {"parameters": values.numel()})
    total = {"part": "all", "layer": "", "output": "", "parameters": sum(r["parameters"] for r in rows)}
    return pd.DataFrame([*rows, total])
