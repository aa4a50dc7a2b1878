"""The labels of a survey: who is flagged by eye, and who is graded afterwards.

In the HSC search of Chan et al. (2023) a person flagged 6,199 of 121,870 preselected objects, about 2%
of the flagged were graded as lens candidates, and 27 of 132 graded ones lie among the objects that
were not flagged. So a flag is a noisy label. Here the chance of a flag depends on the class and on how
clearly two images are seen; the grade is a second, more careful look.
"""

import numpy as np

from lensq.simulate.observe import Conditions
from lensq.simulate.parameters import INSTRUMENT, LABELLER


def clarity(resemblance: tuple[float, float] | None, conditions: Conditions) -> float:
    """How clearly two images are seen, 0 to 1.

    The product of two logistic functions: of separation over seeing, and of the signal-to-noise ratio
    of the fainter image under the PSF.
    """
    if resemblance is None:
        return 0.0
    separation, flux = resemblance
    width = conditions.seeing / 2.355 / INSTRUMENT.pixel_scale
    signal_to_noise = flux / (conditions.sky * np.sqrt(4 * np.pi) * width)
    resolved = (separation / conditions.seeing - LABELLER.resolved_at) / LABELLER.resolved_width
    detected = (signal_to_noise - LABELLER.detected_at) / LABELLER.detected_width
    return float(1 / (1 + np.exp(-np.clip(resolved, -50, 50))) / (1 + np.exp(-np.clip(detected, -50, 50))))


def look(name: str, seen: float, rng: np.random.Generator) -> dict:
    """Flag and grade one object of class `name` whose images are seen with clarity `seen`.

    The flag is a draw with the chance between the two of `LABELLER.flag_<name>`. The grade (0 to 3) is
    `best` x clarity plus a scatter, `best` being 3 for a lens and less for a mimic. Graded are grades of
    at least 2 among the flagged and, for lenses, among the share that other searches know. All go into the
    columns `clarity`, `flagged`, `grade` and `graded` of the truth table.
    """
    low, high = getattr(LABELLER, f"flag_{name}")
    is_lens = name == "lens"
    flagged = bool(rng.random() < low + (high - low) * seen)
    best = LABELLER.lens_grade if is_lens else LABELLER.mimic_grade
    grade = float(np.clip(best * seen + rng.normal(0, LABELLER.grade_scatter), 0, 3))
    known = is_lens and rng.random() < LABELLER.known_elsewhere
    graded = grade >= LABELLER.passing_grade and (flagged or known)
    return {"clarity": seen, "flagged": flagged, "grade": grade, "graded": graded}
