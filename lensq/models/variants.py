"""The seven variants, each one line: a network, an objective, its defaults; and the model they all are.

The defaults are those of the published study (its losses divided by their KL weight, so that every term is
in nats: sum of squares + 0.005 KL is a Gaussian likelihood of noise scale 0.05 with beta 1).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from lensq.models.networks import build_network
from lensq.models.objectives import OBJECTIVES
from lensq.models.objectives.elbo import Batch, Terms
from lensq.models.objectives.likelihood import GaussianLikelihood

NOT_FINITE = "is not finite: look at the preprocessing of the images, or train at a lower rate or in fp32"

Images = Iterable[tuple[Tensor, ...]]
"""Batches of (images, mask, ...), such as `lensq.models.batches.Batches`."""

ACTIVATIONS = {"sigmoid": torch.sigmoid, "linear": nn.Identity()}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that rebuilds a model besides its weights; plain values, for JSON.

    Attributes:
        variant: name in `MODELS`.
        network: name in `networks.NETWORKS`.
        objective: name in `objectives.OBJECTIVES`.
        size: side of the image in pixels, 16 or more.
        latent: length of the latent vector.
        width: channels of the network's first stage.
        activation: of the output, "sigmoid" for images scaled to [0, 1] or "linear" for asinh.
        noise_scale: standard deviation of the Gaussian likelihood, in preprocessed pixel units.
        reference_size: training objects kept with the model as its reference sample, at most.
        bands: number of bands C of the image.
        options: the objective's own, all fields of its `Options`.
    """

    variant: str
    network: str
    objective: str
    size: int = 64
    latent: int = 128
    width: int = 32
    activation: str = "sigmoid"
    noise_scale: float = 0.05
    reference_size: int = 2048
    bands: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


GENERAL = frozenset(f.name for f in fields(ModelConfig)) - {"variant", "network", "objective", "options"}
"""What may be chosen of every variant's configuration, besides the objective's own options."""


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ValueError for a name that is not known: it offers the nearest and lists those that are."""
    for name in sorted(set(given) - set(known)):
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        raise ValueError(f"{what} has no option {name}{hint} It takes {', '.join(sorted(known))}")


@dataclass(frozen=True)
class Variant:
    """A composition of a network and an objective.

    Attributes:
        name: the variant's name in `MODELS`.
        network: name in `networks.NETWORKS`.
        objective: name in `objectives.OBJECTIVES`.
        defaults: what differs from the defaults of `ModelConfig` and of the objective's `Options`.
        source: where the variant was published.
    """

    name: str
    network: str
    objective: str
    defaults: Mapping[str, Any]
    source: str

    @property
    def options(self) -> frozenset[str]:
        """Names of what `config` takes: fields of `ModelConfig` and of the objective's `Options`."""
        return GENERAL | {f.name for f in fields(OBJECTIVES[self.objective].Options)}

    def config(self, **overrides: Any) -> ModelConfig:
        """The configuration of this variant with some values changed.

        Args:
            **overrides: fields of `ModelConfig` (size, latent, width, noise_scale ...) or of the objective's
                `Options` (beta, annealing_steps ...).

        Raises:
            ValueError: for a name that is neither; the message lists those that are.
        """
        check_names(overrides, self.options, self.name)
        values = {**self.defaults, **overrides}
        own = {name: values.pop(name) for name in values.keys() - GENERAL}
        options = asdict(OBJECTIVES[self.objective].Options(**own))
        return ModelConfig(self.name, self.network, self.objective, **values, options=options)


_BETATC = {"noise_scale": 0.005**0.5}

_VARIANTS = (
    Variant("SVDD_VAE", "conv5", "svdd", {}, "Wang et al.; Ruff et al. 2018"),
    Variant("DFC_VAE", "conv5", "dfc", {}, "Hou et al. 2017"),
    Variant("RESNET18_VAE", "resnet18", "elbo", {"width": 64}, "He et al. 2016; Kingma & Welling 2014"),
    Variant("BetaTC_VAE", "conv4", "betatc", _BETATC, "Chen et al. 2018"),
    Variant("RESNET18_BETATC_VAE", "resnet18", "betatc", _BETATC | {"width": 64}, "Chen et al. 2018"),
    Variant("UNSUP_GMVAE", "conv5", "mixture", {}, "Dilokthanakul et al. 2016"),
    Variant("SEMISUP_GMVAE", "conv5", "labelled_mixture", {}, "Kingma et al. 2014"),
)

MODELS: dict[str, Variant] = {variant.name: variant for variant in _VARIANTS}
"""The seven variants by name."""


class VAE(nn.Module):
    """A variational autoencoder: an encoder, a decoder, a likelihood and an objective.

    The weights depend on `config` and `seed` alone; the global random state is left as it was. A state dict
    and `config` are all that is needed to rebuild a model.

    Args:
        config: see `ModelConfig`; `MODELS[name].config(...)` makes one.
        seed: of the initial weights.

    Attributes:
        encoder, decoder, likelihood, objective: the parts.

    Raises:
        ValueError: for an unknown network, objective or option, or a value out of range.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        for what, known in (("activation", ACTIVATIONS), ("objective", OBJECTIVES)):
            if (value := getattr(config, what)) not in known:
                raise ValueError(f"{what}={value!r} is unknown; choose one of {', '.join(known)}")
        objective = OBJECTIVES[config.objective]
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = config.size, config.latent, config.width, config.bands
            self.encoder, self.decoder = build_network(config.network, *sizes)
            self.likelihood = GaussianLikelihood(config.noise_scale)
            options = objective.Options(**config.options)
            self.objective = objective(self.encoder.features, config.latent, options)
        shape = (config.reference_size, config.latent)
        self.register_buffer("reference_mu", torch.zeros(shape))
        self.register_buffer("reference_logvar", torch.zeros(shape))
        self.register_buffer("reference_count", torch.tensor(0))
        self.to(memory_format=torch.channels_last)

    @property
    def reference(self) -> tuple[Tensor, Tensor] | None:
        """Posterior means and log variances (n, D) of the reference sample; None before `finish`."""
        count = int(self.reference_count)
        return (self.reference_mu[:count], self.reference_logvar[:count]) if count else None

    def decode(self, z: Tensor) -> Tensor:
        """Latent vectors (N, D) to images (N, C, S, S) in preprocessed units, in single precision."""
        return ACTIVATIONS[self.config.activation](self.decoder(z).float())

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        *,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Terms:
        """Per-object terms of a batch of B objects.

        In evaluation mode without a generator every term is a function of one object and the model. z is then
        the posterior mean: "kl" is exact as ever, "reconstruction" is the negative log likelihood at the
        posterior mean and not its expectation; the objective's own terms say the same in its docstring.

        Args:
            images: preprocessed images (B, C, S, S); what lies behind the mask is not looked at.
            mask: (B, C, S, S) bool, True for real pixels.
            generator: source of the latent noise; None sets z = mu.
            labels: (B,) integers, -1 where unlabelled; only semi-supervised objectives look at them.

        Returns:
            "reconstruction" (B,) in nats, "kl" (B, D) in nats, "mu" and "logvar" (B, D), "mean" (B, C, S, S),
            "z", and the objective's extras.

        Raises:
            ValueError: for a wrong shape.
            FloatingPointError: in evaluation mode, if a term is not finite; it names the term.
        """
        size, bands = self.config.size, self.config.bands
        if images.shape != mask.shape or images.shape[1:] != (bands, size, size):
            found = f"images {tuple(images.shape)}, mask {tuple(mask.shape)}"
            raise ValueError(f"{found}: both must be (B, {bands}, {size}, {size})")
        images = torch.where(mask, images, 0).contiguous(memory_format=torch.channels_last)

        def reconstruct(z: Tensor) -> tuple[Tensor, Tensor]:
            mean = self.decode(z.flatten(0, -2)).unflatten(0, z.shape[:-1])
            return mean, self.likelihood(images, mean, mask)

        features = self.encoder(images)
        reference = None if self.training else self.reference
        terms = self.objective(Batch(images, mask, features, reconstruct, generator, labels, reference))
        if not self.training:
            _check_finite(terms)
        return terms

    def prepare(self, batches: Images) -> None:
        """Pass over training data before the first step.

        The decoder's last bias is set to the mean of the real pixels of each band: stamps are mostly sky, and
        a decoder that starts half bright spends its first epochs on darkening. Objectives that need it look
        at the posteriors (the SVDD centre).

        Args:
            batches: (images, mask, ...) as `forward` takes them, on the model's device; iterated over
                twice where the objective looks at them too.

        Raises:
            ValueError: if there is no real pixel in them.
        """
        total = torch.zeros((self.config.bands, 2), dtype=torch.float64)
        for images, mask, *_ in batches:
            for band, light, real in zip(total, images.unbind(1), mask.unbind(1), strict=True):
                band.add_(torch.stack([torch.where(real, light, 0).sum(), real.sum()]).cpu())
        if not total[:, 1].any():
            raise ValueError("no real pixel to prepare on: give at least one batch of (images, mask)")
        if self.objective.needs_preparation:
            self.objective.prepare(self._posteriors(batches))
        level = total[:, 0] / total[:, 1].clamp(min=1)
        if self.config.activation == "sigmoid":
            level = torch.logit(level, eps=0.01)
        with torch.no_grad():
            self.decoder.stages[-1].bias.copy_(level)

    def finish(self, batches: Images) -> None:
        """Pass over a fixed sample of training objects after training; keep what scoring needs of it.

        Stores the posterior means and log variances of the first `config.reference_size` objects, and lets
        the objective settle (the SVDD radius).

        Args:
            batches: (images, mask, ...) as `forward` takes them, on the model's device.
        """
        sample = self._posteriors(batches)
        self.objective.finish(sample)
        count = len(sample["mu"])
        self.reference_mu[:count] = sample["mu"]
        self.reference_logvar[:count] = sample["logvar"]
        self.reference_count.fill_(count)

    @torch.no_grad()
    def _posteriors(self, batches: Images) -> dict[str, Tensor]:
        """The terms "mu" and "logvar" (n, D) of at most `reference_size` objects, in evaluation mode."""
        was_training = self.training
        self.eval()
        terms = (self(images, mask) for images, mask, *_ in batches)
        found = [(each["mu"], each["logvar"]) for each in terms]
        self.train(was_training)
        if not found:
            raise ValueError("no training object to pass over: give at least one batch of (images, mask)")
        mu, logvar = (torch.cat(parts)[: self.config.reference_size] for parts in zip(*found, strict=True))
        return {"mu": mu, "logvar": logvar}


def _check_finite(terms: Mapping[str, Tensor]) -> None:
    total = torch.stack([value.detach().float().sum() for value in terms.values()]).sum()
    if torch.isfinite(total):
        return
    for name, value in terms.items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(f'the term "{name}" {NOT_FINITE}')
