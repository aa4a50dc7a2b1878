"""A folder of FITS cutouts becomes a `Survey`: one file is read, a folder listed, packed into arrays,
split on the sky, and its images cropped, masked and normalised. Leads out: `read_survey` and `Survey`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
