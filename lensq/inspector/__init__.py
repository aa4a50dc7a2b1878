"""The candidate inspector of JupyterLab: a gallery, labels by eye, a threshold to move.

Lead out: `Inspector`, `LabelStore` and `ThresholdSlider`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
