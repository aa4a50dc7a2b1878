"""Find strongly lensed quasars as anomalies of variational autoencoders.

The packages, in the order in which data flow: `survey` or `simulate` make a `Survey`, `models` learn from it,
`scores` hold what they say of each object, `statistics` what the table says, `classifiers` stand beside the
models, `detection` decides; `figures`, `inspector` and `study` show it and run it. Everything is imported
when it is first used, so that `import lensq` costs no more than Python itself.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
