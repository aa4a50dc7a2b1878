from . import (
    artefacts as artefacts,
)
from . import (
    colours as colours,
)
from . import (
    cosmology as cosmology,
)
from . import (
    cutout as cutout,
)
from . import (
    fits as fits,
)
from . import (
    labeller as labeller,
)
from . import (
    lens_equation as lens_equation,
)
from . import (
    light as light,
)
from . import (
    observe as observe,
)
from . import (
    om10 as om10,
)
from . import (
    parameters as parameters,
)
from . import (
    population as population,
)
from . import (
    realism as realism,
)
from . import (
    scenes as scenes,
)
from . import (
    sky as sky,
)
from . import (
    spectra as spectra,
)
from . import (
    survey as survey,
)
from . import (
    truth as truth,
)
from .cutout import Cutout as Cutout
from .cutout import Target as Target
from .cutout import make_cutout as make_cutout
from .parameters import MIXES as MIXES
from .parameters import parameter_table as parameter_table
from .scenes import CLASSES as CLASSES
from .survey import simulate_survey as simulate_survey
