from . import (
    batches as batches,
)
from . import (
    conditions as conditions,
)
from . import (
    layers as layers,
)
from . import (
    loop as loop,
)
from . import (
    memory as memory,
)
from . import (
    networks as networks,
)
from . import (
    objectives as objectives,
)
from . import (
    options as options,
)
from . import (
    training as training,
)
from . import (
    variants as variants,
)
from .layers import layer_table as layer_table
from .options import TrainingOptions as TrainingOptions
from .training import Model as Model
from .training import fit as fit
from .training import load_model as load_model
from .variants import MODELS as MODELS
