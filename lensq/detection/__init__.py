"""Scores become decisions: detectors and thresholds chosen on selection tiles, FDR-controlled lists,
completeness, evaluation on held-out sky, leaderboard and leakage audit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
