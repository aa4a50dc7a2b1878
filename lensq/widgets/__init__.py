"""The candidate inspector: labels by eye, a gallery to give them in, a threshold to move."""

from lensq.widgets.inspector import Inspector
from lensq.widgets.labels import LabelStore
from lensq.widgets.thresholds import ThresholdSlider

__all__ = ["Inspector", "LabelStore", "ThresholdSlider"]
