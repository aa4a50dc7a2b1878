"""Scores become decisions: detectors and thresholds chosen on selection tiles, FDR-controlled lists,
completeness, evaluation on held-out sky, leaderboard and leakage audit. Lead out: `choose_detector`,
`candidate_list`, `rank`, `score_on_test` and `rank_entries`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
