from . import (
    factors as factors,
)
from . import (
    guard as guard,
)
from . import (
    latent as latent,
)
from . import (
    metrics as metrics,
)
from . import (
    twosample as twosample,
)
from .factors import FACTORS as FACTORS
from .factors import cluster_table as cluster_table
from .factors import mutual_information_gap as mutual_information_gap
from .guard import LeakageError as LeakageError
from .guard import has_both_classes as has_both_classes
from .guard import labelled as labelled
from .latent import RULES as RULES
from .latent import choice_stability as choice_stability
from .latent import choose_dimensions as choose_dimensions
from .latent import dimension_statistics as dimension_statistics
from .latent import joint_map as joint_map
from .latent import null_p_values as null_p_values
from .metrics import compare as compare
from .metrics import expected_in_list as expected_in_list
from .metrics import measure as measure
from .metrics import operating_curve as operating_curve
