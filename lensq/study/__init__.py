"""What the workflow and the notebooks need of Python: parameters and their checks, profiles, sweeps.
Leads out: `check_parameters`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
