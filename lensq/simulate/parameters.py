"""Every number that the simulated survey rests on, with its unit, its source and how well that is checked.

Each dataclass holds the parameters of one room of the simulator; a field carries its unit, source
and check as metadata, so that `parameter_table` can print them all in one table.
"""

from dataclasses import dataclass, field, fields

import pandas as pd


def _parameter(value, unit: str, source: str, check: str = "choice"):
    return field(default=value, metadata={"unit": unit, "source": source, "check": check})


OM10 = "Oguri & Marshall 2010 (MNRAS 405, 2579)"
MEASURED = "measured on HSC cutouts"


@dataclass(frozen=True)
class Cosmology:
    """Flat Lambda-CDM."""

    hubble: float = _parameter(70.0, "km/s/Mpc", "the distances of the OM10 catalogue", "checked: catalogue")
    omega_matter: float = _parameter(0.3, "", "the distances of the OM10 catalogue", "checked: catalogue")


@dataclass(frozen=True)
class Instrument:
    """Hyper Suprime-Cam, i band, coadded images."""

    zero_point: float = _parameter(27.0, "mag (AB)", "FLUXMAG0 of HSC coadds", "checked: header")
    pixel_scale: float = _parameter(0.168, "arcsec/px", "WCS of HSC coadds", "checked: header")
    seeing: float = _parameter(
        0.60,
        "arcsec (median FWHM)",
        "Aihara et al. 2019; 46 PSF models have 0.58 to 0.63",
        "checked: abstract",
    )
    seeing_scatter: float = _parameter(
        0.07, "(sigma of ln FWHM)", "wider than one field's 0.02, as a survey's is", "choice"
    )
    seeing_limits: tuple = _parameter((0.42, 0.95), "arcsec", "choice")
    psf_widths: tuple = _parameter(
        (0.865, 1.695, 3.848),
        "FWHM of three Gaussians / seeing",
        "fit to 46 HSC i-band PSF models",
        "measured",
    )
    psf_weights: tuple = _parameter(
        (0.377, 0.452, 0.171), "their fluxes", "fit to 46 HSC i-band PSF models", "measured"
    )
    psf_wing_scatter: float = _parameter(0.1, "(sigma of ln of the widest one's flux)", "choice")
    psf_shear: float = _parameter(0.01, "(sigma of each component)", "46 HSC i-band PSF models", "measured")
    exposures: tuple = _parameter((5, 6, 6, 6, 6, 6, 6, 7), "count, drawn evenly", "choice")
    sky_noise: float = _parameter(0.053, "counts/px at 6 exposures", MEASURED, "measured")
    sky_noise_scatter: float = _parameter(0.04, "(sigma of ln)", "choice")
    resampling: tuple = _parameter(
        (0.05, 0.09), "weight of the next pixel in the noise", MEASURED, "measured"
    )
    gain: float = _parameter(4800.0, "electrons/count at 6 exposures", "choice")
    background_offset: tuple = _parameter((0.004, 0.006), "counts/px (mean, sigma)", MEASURED, "measured")
    background_slope: float = _parameter(0.008, "counts/px across the cutout (sigma)", "choice")
    zero_point_scatter: float = _parameter(0.01, "mag (sigma)", "choice")
    centring_share: float = _parameter(
        0.5, "(share of objects whose position is another catalogue's; the rest: half a pixel)", "choice"
    )
    centring_error: float = _parameter(
        1.6, "px (sigma of each axis, of those)", "46 COSMOS quasars", "measured"
    )


@dataclass(frozen=True)
class LensPopulation:
    """Deflectors, sources and cuts of the lensed quasars, after OM10."""

    sigma_star: float = _parameter(161.0, "km/s", "Choi et al. 2007, used by OM10", "checked: public codes")
    sigma_alpha: float = _parameter(2.32, "", "Choi et al. 2007, used by OM10", "checked: public codes")
    sigma_beta: float = _parameter(2.67, "", "Choi et al. 2007, used by OM10", "checked: public codes")
    sigma_limits: tuple = _parameter(
        (100.0, 400.0), "km/s", "range of the OM10 catalogue", "checked: catalogue"
    )
    z_lens_limits: tuple = _parameter((0.03, 1.6), "", "choice")
    z_source_limits: tuple = _parameter((0.4, 5.5), "", "range of the OM10 catalogue", "checked: catalogue")
    quasar_bright_slope: float = _parameter(3.31, "", OM10, "checked: public codes")
    quasar_bright_slope_high_z: float = _parameter(2.58, "(z_source > 3)", OM10, "checked: public codes")
    quasar_faint_slope: float = _parameter(1.45, "", OM10, "checked: public codes")
    quasar_break_magnitude: float = _parameter(-20.90, "mag + 5 log h", OM10, "checked: public codes")
    quasar_zeta: float = _parameter(2.98, "", OM10, "checked: public codes")
    quasar_xi: float = _parameter(4.05, "", OM10, "checked: public codes")
    quasar_z_star: float = _parameter(1.60, "", OM10, "checked: public codes")
    ellipticity: tuple = _parameter((0.3, 0.16), "(mean, sigma) of 1 - q", OM10, "checked: catalogue")
    shear: tuple = _parameter((0.05, 0.2), "(median, dex)", OM10, "checked: catalogue")
    faint_image_limit: float = _parameter(
        23.3, "mag", "fainter of two or third of four, OM10", "checked: catalogue"
    )
    total_limits: tuple = _parameter((17.5, 22.3), "mag, all images", "choice")
    separation_limits: tuple = _parameter((0.5, 4.0), "arcsec", OM10, "checked: catalogue")
    smallest_flux_ratio: float = _parameter(0.1, "", OM10 + ", doubles", "checked: catalogue")
    deflector_limits: tuple = _parameter((17.5, 23.0), "mag", "choice")
    deflector_magnitude: float = _parameter(-21.519, "mag at 161 km/s, z = 0", OM10, "checked: catalogue")
    deflector_slope: float = _parameter(
        -6.04, "mag/dex of sigma_v", OM10 + ", Faber-Jackson", "checked: catalogue"
    )
    deflector_evolution: float = _parameter(-0.75, "mag per unit redshift", OM10, "checked: catalogue")
    deflector_k_correction: float = _parameter(1.0, "mag per unit redshift", OM10, "checked: catalogue")
    deflector_scatter: float = _parameter(0.2, "mag (OM10 has none)", "choice")


@dataclass(frozen=True)
class Light:
    """Galaxies, hosts and neighbours."""

    point_magnitudes: tuple = _parameter((18.0, 22.2, 0.17), "mag, mag, slope of log counts", "choice")
    galaxy_magnitudes: tuple = _parameter((18.0, 22.2, 0.30), "mag, mag, slope of log counts", "choice")
    neighbour_magnitudes: tuple = _parameter(
        (18.5, 26.0, 0.30), "mag, mag, slope of log counts", "counts around 46 COSMOS quasars", "measured"
    )
    neighbours: float = _parameter(
        0.027, "1/arcsec^2 (density)", "counts around 46 COSMOS quasars", "measured"
    )
    neighbour_stars: float = _parameter(0.12, "(share)", "choice")
    early_share: float = _parameter(0.35, "(share of field galaxies)", "choice")
    early_size: float = _parameter(0.42, "arcsec (half-light radius at i = 21)", "choice")
    late_size: float = _parameter(0.62, "arcsec (half-light radius at i = 21)", "choice")
    size_slope: float = _parameter(-0.1, "dex/mag", "choice")
    size_scatter: float = _parameter(0.16, "dex", "choice")
    quasar_redshift: tuple = _parameter((1.36, 0.55), "(mean, sigma)", "46 COSMOS quasars", "measured")
    quasar_redshift_limits: tuple = _parameter((0.3, 4.0), "", "choice")
    host_magnitude: tuple = _parameter(
        (22.4, 6.5, 0.8), "mag at z = 1.2, mag/dex of z, sigma", "46 COSMOS quasars", "measured"
    )
    host_size: tuple = _parameter(
        (0.5, -0.15, 0.2), "arcsec at i = 21, dex/mag, sigma in dex", "46 COSMOS quasars", "measured"
    )
    lens_central_magnitudes: tuple = _parameter(
        (17.85, 19.26, 19.68, 20.04, 20.33, 20.58, 20.82, 21.03, 21.26, 21.58, 22.74),
        "mag within 5 px (even quantiles)",
        "2,000 simulated lenses",
        "measured",
    )
    host_arc_fraction: float = _parameter(0.7, "(of lenses with z_source < 3)", "choice")
    host_arc_magnitude: tuple = _parameter(
        (23.3, 0.7, 0.8), "mag at z_source 1.5, mag per unit redshift, sigma; before lensing", "choice"
    )
    host_arc_size: tuple = _parameter((0.15, 0.4), "arcsec (half-light radius, source plane)", "choice")


@dataclass(frozen=True)
class Shapes:
    """Shapes of galaxies and of groups of objects; ranges are drawn evenly."""

    elliptical_index: tuple = _parameter((3.7, 0.8), "Sersic index (mean, sigma)", "choice")
    elliptical_axis_ratio: tuple = _parameter((0.5, 1.0), "", "choice")
    disk_bulge: tuple = _parameter((1.2, 4.0), "bulge share of the light (a, b of a beta law)", "choice")
    host_index: tuple = _parameter((1.0, 4.0), "Sersic index", "choice")
    host_axis_ratio: tuple = _parameter((0.55, 1.0), "", "46 COSMOS quasars", "measured")
    deflector_index: tuple = _parameter((4.0, 0.6), "Sersic index (mean, sigma)", "choice")
    deflector_size: tuple = _parameter(
        (2.46, -2.79, 0.84, 0.11),
        "log10 kpc: powers 0, 1, 2 of log10 sigma_v; sigma in dex",
        "Hyde & Bernardi 2009 as in LensPop (Collett 2015)",
        "checked: public codes",
    )
    light_and_mass: tuple = _parameter((0.08, 0.15), "sigma of axis ratio, of angle (rad)", "choice")
    spiral_arms: tuple = _parameter((0.25, 0.5), "share of the light in the arms", "choice")
    spiral_bulge: tuple = _parameter((0.08, 0.3), "share of the light", "choice")
    spiral_pitch: tuple = _parameter((12.0, 28.0), "deg", "choice")
    spiral_brighter: float = _parameter(1.3, "mag than other galaxies", "choice")
    clump_light: tuple = _parameter((0.25, 0.6), "share of the light in clumps", "choice")
    clump_number: tuple = _parameter((3, 9), "count (below the last)", "choice")
    clump_width: tuple = _parameter((0.05, 0.2), "arcsec (sigma of a Gaussian)", "choice")
    tail_light: tuple = _parameter((0.05, 0.3), "of the brighter galaxy's, in a merger's tail", "choice")
    pair_separation: tuple = _parameter((0.5, 4.0), "arcsec, even over the area", "choice")
    pair_close_share: float = _parameter(0.55, "(share of pairs favoured to be close)", "choice")
    pair_close_limit: float = _parameter(2.4, "arcsec (largest separation of those)", "choice")
    pair_contrast: float = _parameter(0.9, "mag (sigma of the difference of two points)", "choice")
    galaxy_contrast: float = _parameter(1.0, "mag (sigma of a galaxy's difference to the point)", "choice")
    companion_fainter: tuple = _parameter((0.3, 2.5), "mag than the quasar", "choice")
    merger_separation: tuple = _parameter((0.5, 2.6), "arcsec", "choice")


@dataclass(frozen=True)
class Footprint:
    """Where the objects lie."""

    second_cutouts: float = _parameter(
        0.3, "(share of pair scenes)", "6% of the real list is paired", "checked: list"
    )
    usual_share: float = _parameter(
        0.94, "(share of pairs at the usual distance)", "real list", "checked: list"
    )
    usual_distance: tuple = _parameter((2.0, 3.0), "arcsec", "real list", "checked: list")
    distance: tuple = _parameter((1.0, 4.0), "arcsec", "real list", "checked: list")
    fields: tuple = _parameter(
        (
            (-32.0, 40.0, -1.2, 5.5),
            (30.0, 39.5, -7.0, -1.2),
            (127.0, 227.0, -1.8, 5.2),
            (199.0, 250.5, 42.2, 44.7),
        ),
        "deg (RA from, to, Dec from, to)",
        "HSC-SSP Wide as the real list fills it",
        "checked: list",
    )


@dataclass(frozen=True)
class Inspector:
    """Who is flagged by eye, and who is graded."""

    resolved_at: float = _parameter(1.5, "separation / seeing at half clarity", "choice")
    resolved_width: float = _parameter(0.3, "separation / seeing", "choice")
    detected_at: float = _parameter(10.0, "S/N of the fainter part at half clarity", "choice")
    detected_width: float = _parameter(3.0, "S/N", "choice")
    lens_grade: float = _parameter(3.0, "(0 to 3) of a perfectly clear lens", "choice")
    mimic_grade: float = _parameter(1.2, "(0 to 3) of a perfectly clear mimic", "choice")
    grade_scatter: float = _parameter(0.4, "(sigma)", "choice")
    passing_grade: float = _parameter(2.0, "(0 to 3)", "Chan et al. 2023", "checked: abstract")
    known_elsewhere: float = _parameter(0.5, "(share of lenses that other searches know)", "choice")


COSMOLOGY, INSTRUMENT, LENSES, LIGHT, SHAPES, FOOTPRINT, INSPECTOR = (
    Cosmology(),
    Instrument(),
    LensPopulation(),
    Light(),
    Shapes(),
    Footprint(),
    Inspector(),
)


MIXES: dict[str, dict[str, float]] = {
    "catalogue": {
        "point": 0.66,
        "elliptical": 0.06,
        "disk": 0.05,
        "spiral": 0.015,
        "clumpy": 0.02,
        "star_galaxy": 0.07,
        "star_star": 0.045,
        "quasar_companion": 0.04,
        "pair_galaxy": 0.01,
        "merger": 0.015,
        "artefact": 0.015,
    },
    "hard": {
        "point": 0.40,
        "elliptical": 0.10,
        "disk": 0.09,
        "spiral": 0.04,
        "clumpy": 0.04,
        "star_galaxy": 0.11,
        "star_star": 0.08,
        "quasar_companion": 0.05,
        "pair_galaxy": 0.03,
        "merger": 0.03,
        "artefact": 0.03,
    },
}
"""Shares of the ordinary classes, as scenes."""

FLAG_CHANCE: dict[str, tuple[float, float]] = {
    "point": (0.003, 0.003),
    "elliptical": (0.010, 0.010),
    "disk": (0.020, 0.020),
    "spiral": (0.050, 0.050),
    "clumpy": (0.100, 0.100),
    "star_galaxy": (0.020, 0.220),
    "star_star": (0.020, 0.270),
    "quasar_companion": (0.020, 0.200),
    "pair_galaxy": (0.050, 0.600),
    "merger": (0.030, 0.180),
    "artefact": (0.020, 0.020),
    "lens": (0.050, 0.950),
}
"""Chance of a flag by class, where nothing is resolved and where both images are perfectly clear."""


def parameter_table() -> pd.DataFrame:
    """All parameters of the simulator.

    Returns:
        One row a parameter: group, parameter, value, unit, source, check (how the source was
        verified; "choice" where there is none).
    """
    rows = [
        {
            "group": type(group).__name__,
            "parameter": item.name,
            "value": getattr(group, item.name),
            **item.metadata,
        }
        for group in (COSMOLOGY, INSTRUMENT, LENSES, LIGHT, SHAPES, FOOTPRINT, INSPECTOR)
        for item in fields(group)
    ]
    shares = {
        "unit": "(share of scenes)",
        "source": "plausible, not fitted to the real set",
        "check": "choice",
    }
    rows += [
        {"group": f"Mix {mix}", "parameter": name, "value": share, **shares}
        for mix, classes in MIXES.items()
        for name, share in classes.items()
    ]
    chance = {
        "unit": "(chance of a flag at clarity 0 and 1)",
        "source": "so that some 5% of the ordinary objects and three quarters of the lenses are flagged; the "
        "reference flags 5% of all objects and 105 of 132 graded ones",
        "check": "choice",
    }
    rows += [
        {"group": "Inspector", "parameter": f"flag {name}", "value": value, **chance}
        for name, value in FLAG_CHANCE.items()
    ]
    return pd.DataFrame(rows)
