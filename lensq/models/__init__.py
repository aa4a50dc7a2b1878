"""Seven variational autoencoders, each a network and an objective, and how they are trained and kept.
Lead out: `MODELS`, `fit`, `Model` and `load_model`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
