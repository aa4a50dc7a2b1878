from . import (
    bundle as bundle,
)
from . import (
    catalogues as catalogues,
)
from . import (
    files as files,
)
from . import (
    fits as fits,
)
from . import (
    hdus as hdus,
)
from . import (
    images as images,
)
from . import (
    ingest as ingest,
)
from . import (
    inventory as inventory,
)
from . import (
    lists as lists,
)
from . import (
    planes as planes,
)
from . import (
    provenance as provenance,
)
from . import (
    split as split,
)
from . import (
    store as store,
)
from . import (
    survey as survey,
)
from .catalogues import known_lenses as known_lenses
from .catalogues import match_catalogue as match_catalogue
from .inventory import take_inventory as take_inventory
from .split import groups_table as groups_table
from .survey import Survey as Survey
from .survey import read_survey as read_survey
