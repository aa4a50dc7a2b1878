"""The architecture of a model as a table: layers, what they give, how many parameters they have."""

import copy
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from lensq.models.networks import ResidualBlock
from lensq.models.objectives.features import FeatureNetwork
from lensq.models.variants import VAE

_FOLLOWERS = {nn.BatchNorm2d: "batch norm", nn.ReLU: "ReLU", nn.LeakyReLU: "LeakyReLU"}
_ROLES = {
    "posterior": "linear: mean and log variance of z",
    "classifier": "two linear layers: log q(y|x)",
    "shared": "linear: features for every cluster",
    "by_cluster": "what each cluster adds to them",
    "prior_mu": "means of p(z|y)",
    "prior_logvar": "log variances of p(z|y)",
}


def _described(name: str, module: nn.Module) -> str:
    if isinstance(module, ResidualBlock):
        if module.enlarge_to:
            return "residual block, enlarged"
        return "residual block" + (", stride 2" if module.main[0].stride[0] == 2 else "")
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        kind = "transposed convolution" if isinstance(module, nn.ConvTranspose2d) else "convolution"
        stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
        return f"{kind} {module.kernel_size[0]}x{module.kernel_size[1]}{stride}"
    plain = {nn.Linear: "linear", nn.Flatten: "flatten", nn.Unflatten: "unflatten", nn.Upsample: "upsample"}
    if name in _ROLES:
        return _ROLES[name]
    return "frozen feature network" if isinstance(module, FeatureNetwork) else plain[type(module)]


def _parts(vae: VAE) -> Iterator[tuple[str, str, nn.Module]]:
    """Part, name and module of each layer, in the order in which an image meets them."""
    for name, module in vae.encoder.stages.named_children():
        yield "encoder", name, module
    children = sorted(vae.objective.named_children(), key=lambda child: isinstance(child[1], FeatureNetwork))
    for name, module in children:
        yield ("loss" if isinstance(module, FeatureNetwork) else "posterior"), name, module
    for stages in (vae.decoder.start, vae.decoder.stages):
        for name, module in stages.named_children():
            yield "decoder", name, module


def _by(sides: Sequence[int]) -> str:
    return "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(map(str, sides))


def _shape(output: Tensor | tuple[Tensor, ...]) -> str:
    first = output[0] if isinstance(output, tuple) else output
    return _by(first.shape[1:]) or "1"


def layer_table(vae: VAE) -> pd.DataFrame:
    """What a model is made of; normalisations and activations stand with the layer before them.

    Args:
        vae: any variant; it is left as it was.

    Returns:
        One row a layer: `part` ("encoder", "posterior", "prior", "decoder", "likelihood", "loss"), `layer`,
        `output` (shape for one image, channels first; for a mixture, a row a cluster), `parameters`
        (trained ones; those of a frozen network are none). The last row is their sum.
    """
    vae = copy.deepcopy(vae).cpu().eval()
    shapes: dict[nn.Module, str] = {}
    for _, _, module in _parts(vae):
        module.register_forward_hook(lambda module, _, output: shapes.update({module: _shape(output)}))
    size = vae.config.size
    with torch.inference_mode():
        vae(torch.zeros(1, 1, size, size), torch.ones(1, 1, size, size, dtype=torch.bool))

    rows: list[dict] = []
    for part, name, module in _parts(vae):
        count = sum(p.numel() for p in module.parameters())
        if type(module) in _FOLLOWERS:
            rows[-1]["layer"] += f", {_FOLLOWERS[type(module)]}"
            rows[-1]["parameters"] += count
        else:
            row = {"part": part, "layer": _described(name, module), "output": shapes[module]}
            rows.append(row | {"parameters": count})
    for name, values in vae.objective.named_parameters(recurse=False):
        part = "prior" if name.startswith("prior") else "posterior"
        row = {"part": part, "layer": _ROLES[name], "output": _by(values.shape)}
        rows.append(row | {"parameters": values.numel()})
    if count := sum(p.numel() for p in vae.likelihood.parameters()):
        rows.append({"part": "likelihood", "layer": "noise scale", "output": "1", "parameters": count})
    order = ("encoder", "posterior", "prior", "decoder", "likelihood", "loss")
    rows.sort(key=lambda row: order.index(row["part"]))
    total = {"part": "all", "layer": "", "output": "", "parameters": sum(r["parameters"] for r in rows)}
    return pd.DataFrame([*rows, total])
