from . import (
    density as density,
)
from . import (
    generation as generation,
)
from . import (
    residual as residual,
)
from . import (
    scoring as scoring,
)
from .generation import activity as activity
from .generation import examples as examples
from .generation import prior_samples as prior_samples
from .generation import traversals as traversals
from .residual import CENTRAL_RADIUS as CENTRAL_RADIUS
from .scoring import COLUMNS as COLUMNS
from .scoring import label_free as label_free
from .scoring import reconstruct as reconstruct
from .scoring import score as score
