from . import classifiers as classifiers
from . import detection as detection
from . import figures as figures
from . import inspector as inspector
from . import models as models
from . import scores as scores
from . import simulate as simulate
from . import statistics as statistics
from . import study as study
from . import survey as survey
from .models import MODELS as MODELS
from .models import Model as Model
from .models import fit as fit
from .models import load_model as load_model
from .scores import reconstruct as reconstruct
from .scores import score as score
from .simulate import simulate_survey as simulate_survey
from .study import check_parameters as check_parameters
from .survey import Survey as Survey
from .survey import read_survey as read_survey

__version__: str
