"""What each variant minimises, and the per-object terms it gives: mathematics only, no files, no training.

Every objective is a module that owns its posterior heads, with `forward(batch) -> terms`,
`loss(terms, step=..., dataset_size=...) -> (scalar, curves)`, and, where it needs a pass over the data,
`prepare` (before training) and `finish` (after it).
"""

from lensq.models.objectives.betatc import BetaTC
from lensq.models.objectives.dfc import DFC
from lensq.models.objectives.elbo import Elbo
from lensq.models.objectives.mixture import LabelledMixture, Mixture
from lensq.models.objectives.svdd import SVDD

OBJECTIVES: dict[str, type[Elbo]] = {"elbo": Elbo, "betatc": BetaTC, "svdd": SVDD, "dfc": DFC}
OBJECTIVES |= {"mixture": Mixture, "labelled_mixture": LabelledMixture}

__all__ = ["DFC", "OBJECTIVES", "SVDD", "BetaTC", "Elbo", "LabelledMixture", "Mixture"]
