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
from .inventory import take_inventory as take_inventory
from .split import groups_table as groups_table
from .survey import Survey as Survey
from .survey import match_catalogue as match_catalogue
from .survey import read_survey as read_survey
