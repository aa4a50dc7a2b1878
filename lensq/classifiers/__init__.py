"""What stands beside a variational autoencoder's own score: baselines, a supervised network, encoders
trained on injected lenses and on labels, and active learning. Lead out: `fit_baselines`, `fit_supervised`,
`finetune`, `PointFits` and `label_budget`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
