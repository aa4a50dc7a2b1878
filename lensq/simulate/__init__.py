"""A simulated survey of quasar-selected objects, in the layout of HSC-SSP cutouts.

The rooms, from the numbers to the files: `parameters` (every number with its source), `cosmology`,
`lens_equation` and `population` (lensed quasars), `light` and `scenes` (what stands in a cutout),
`observe` and `artefacts` (the telescope), `inspector` (labels), `cutout` (one object), `sky` (positions
and classes), `fits`, `truth` and `survey` (files). `om10` and `realism` ask how well it agrees with a mock
catalogue and with real pixels.
"""

from lensq.simulate.cutout import Cutout, Target, gallery, make_cutout
from lensq.simulate.parameters import MIXES, parameter_table
from lensq.simulate.scenes import CLASSES
from lensq.simulate.survey import simulate_survey
from lensq.simulate.truth import read_truth, truth_units

__all__ = [
    "CLASSES",
    "MIXES",
    "Cutout",
    "Target",
    "gallery",
    "make_cutout",
    "parameter_table",
    "read_truth",
    "simulate_survey",
    "truth_units",
]
