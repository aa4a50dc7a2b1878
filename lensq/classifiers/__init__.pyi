from . import (
    active as active,
)
from . import (
    baselines as baselines,
)
from . import (
    budget as budget,
)
from . import (
    classifier as classifier,
)
from . import (
    finetuning as finetuning,
)
from . import (
    injection as injection,
)
from . import (
    latent_space as latent_space,
)
from . import (
    pointfits as pointfits,
)
from . import (
    recovery as recovery,
)
from . import (
    supervised as supervised,
)
from .baselines import fit_baselines as fit_baselines
from .budget import budget_summary as budget_summary
from .budget import label_budget as label_budget
from .finetuning import finetune as finetune
from .finetuning import label_the_top as label_the_top
from .injection import InjectionOptions as InjectionOptions
from .injection import draw_lenses as draw_lenses
from .injection import extended as extended
from .injection import inject as inject
from .injection import point_sources as point_sources
from .latent_space import latent_ways as latent_ways
from .pointfits import PointFits as PointFits
from .pointfits import with_point_fits as with_point_fits
from .recovery import injected_survey as injected_survey
from .supervised import fit_supervised as fit_supervised
