"""A model meets a survey: the Scores table with one row an object, and reconstructions, samples and
traversals. Lead out: `score` and `reconstruct`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
