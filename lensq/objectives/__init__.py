"""What each variant minimises, and the per-object terms it gives: mathematics only, no files, no training.

Every objective is a module that owns its posterior heads, with `forward(batch) -> terms`,
`loss(terms, step=..., dataset_size=...) -> (scalar, curves)`, and, where it needs a pass over the data,
`prepare` (before training) and `finish` (after it).
"""

from lensq.objectives.betatc import BetaTC
from lensq.objectives.elbo import Elbo

OBJECTIVES = {"elbo": Elbo, "betatc": BetaTC}

__all__ = ["OBJECTIVES", "BetaTC", "Elbo"]
