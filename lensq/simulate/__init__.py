"""The embedded survey: quasars, galaxies, stars and lenses drawn and written in HSC's own layout,
with the truth beside them. Leads out: `simulate_survey`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
