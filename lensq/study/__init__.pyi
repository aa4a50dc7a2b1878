from . import (
    costs as costs,
)
from . import (
    frontpage as frontpage,
)
from . import (
    parameters as parameters,
)
from . import (
    profiles as profiles,
)
from . import (
    sweep as sweep,
)
from .costs import bound_table as bound_table
from .costs import constants as constants
from .costs import cost_model as cost_model
from .costs import growth_table as growth_table
from .costs import ratio_table as ratio_table
from .costs import read_benchmarks as read_benchmarks
from .costs import shown as shown
from .costs import stage_times as stage_times
from .parameters import check_parameters as check_parameters
from .sweep import compare_runs as compare_runs
from .sweep import over_seeds as over_seeds
from .sweep import settings_of as settings_of
