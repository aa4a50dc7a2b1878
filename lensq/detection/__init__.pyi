from . import (
    artefacts as artefacts,
)
from . import (
    audit as audit,
)
from . import (
    candidates as candidates,
)
from . import (
    completeness as completeness,
)
from . import (
    conformal as conformal,
)
from . import (
    detectors as detectors,
)
from . import (
    entries as entries,
)
from . import (
    evaluation as evaluation,
)
from . import (
    faults as faults,
)
from . import (
    leaderboard as leaderboard,
)
from .artefacts import find_artefacts as find_artefacts
from .audit import chance_runs as chance_runs
from .audit import chance_summary as chance_summary
from .audit import check_splits as check_splits
from .audit import refusals as refusals
from .audit import reproduce as reproduce
from .candidates import about as about
from .candidates import injected_detector as injected_detector
from .candidates import quality as quality
from .candidates import rank as rank
from .candidates import rows_of as rows_of
from .candidates import write_candidates as write_candidates
from .completeness import PROPERTIES as PROPERTIES
from .completeness import at_fpr as at_fpr
from .completeness import blind_spots as blind_spots
from .completeness import by_property as by_property
from .completeness import completeness_curve as completeness_curve
from .completeness import completeness_map as completeness_map
from .completeness import lens_table as lens_table
from .completeness import overall as overall
from .completeness import share_by_class as share_by_class
from .conformal import candidate_list as candidate_list
from .conformal import fdr_study as fdr_study
from .conformal import reach as reach
from .detectors import Detector as Detector
from .detectors import choose_detector as choose_detector
from .detectors import compare_detectors as compare_detectors
from .detectors import compare_pair as compare_pair
from .detectors import evaluate as evaluate
from .detectors import evaluate_graded as evaluate_graded
from .detectors import precision_elsewhere as precision_elsewhere
from .detectors import threshold_curves as threshold_curves
from .entries import baseline_entries as baseline_entries
from .entries import seed_spread as seed_spread
from .entries import trained_entries as trained_entries
from .entries import variant_entries as variant_entries
from .evaluation import make_test_survey as make_test_survey
from .evaluation import read_test_survey as read_test_survey
from .evaluation import record_of as record_of
from .evaluation import score_on_test as score_on_test
from .faults import class_pure_effects as class_pure_effects
from .faults import effect as effect
from .faults import misled_survey as misled_survey
from .faults import passed_off as passed_off
from .faults import repeated_normals as repeated_normals
from .faults import shift_by_label as shift_by_label
from .leaderboard import COLUMNS as COLUMNS
from .leaderboard import expected_lenses as expected_lenses
from .leaderboard import in_words as in_words
from .leaderboard import lead as lead
from .leaderboard import leading as leading
from .leaderboard import named as named
from .leaderboard import objects as objects
from .leaderboard import rank_entries as rank_entries
from .leaderboard import shown as shown
from .leaderboard import side_by_side as side_by_side
from .leaderboard import with_interval as with_interval
