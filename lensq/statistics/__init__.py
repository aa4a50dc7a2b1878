"""What a table of numbers says, without any model: metrics with intervals, weighting, two-sample tests
of latent dimensions, and the guard that keeps splits apart. Lead out: `measure`, `compare`,
`dimension_statistics`, `choose_dimensions` and `labelled`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
