"""Figures of the study: each function takes tables or arrays, never a model, and returns a Matplotlib figure
or a page. Ordinary objects and lenses have the same two colours everywhere, which colour-blind readers can
tell apart. All functions lead out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
