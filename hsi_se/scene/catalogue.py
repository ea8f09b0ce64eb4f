"""The known benchmark scenes: facts only.

Sizes, keys and class names are those of the Computational Intelligence Group of the University of
the Basque Country (EHU), which publishes the scenes; the fixed natural-colour bands are 0-based.
"""

import re
from dataclasses import dataclass

AVIRIS_NATURAL_COLOUR = (43, 21, 11)
ROSIS_NATURAL_COLOUR = (55, 41, 12)


@dataclass(frozen=True, kw_only=True)
class KnownScene:
    """One scene: `rows × cols × bands`, the files and keys it comes in, `class_names` by label."""

    name: str
    title: str
    aliases: tuple[str, ...]
    cube_file: str
    cube_key: str
    labels_file: str
    labels_key: str
    rows: int
    cols: int
    bands: int
    class_names: dict[int, str]
    natural_colour: tuple[int, int, int] | None = None


def _from_one(*names: str) -> dict[int, str]:
    return dict(enumerate(names, start=1))


_SALINAS_CLASSES = _from_one(
    "Brocoli_green_weeds_1",
    "Brocoli_green_weeds_2",
    "Fallow",
    "Fallow_rough_plow",
    "Fallow_smooth",
    "Stubble",
    "Celery",
    "Grapes_untrained",
    "Soil_vinyard_develop",
    "Corn_senesced_green_weeds",
    "Lettuce_romaine_4wk",
    "Lettuce_romaine_5wk",
    "Lettuce_romaine_6wk",
    "Lettuce_romaine_7wk",
    "Vinyard_untrained",
    "Vinyard_vertical_trellis",
)

KNOWN_SCENES = (
    KnownScene(
        name="indian-pines",
        title="Indian Pines (AVIRIS, 1992)",
        aliases=("IP", "IN"),
        cube_file="Indian_pines_corrected.mat",
        cube_key="indian_pines_corrected",
        labels_file="Indian_pines_gt.mat",
        labels_key="indian_pines_gt",
        rows=145,
        cols=145,
        bands=200,
        class_names=_from_one(
            "Alfalfa",
            "Corn-notill",
            "Corn-mintill",
            "Corn",
            "Grass-pasture",
            "Grass-trees",
            "Grass-pasture-mowed",
            "Hay-windrowed",
            "Oats",
            "Soybean-notill",
            "Soybean-mintill",
            "Soybean-clean",
            "Wheat",
            "Woods",
            "Buildings-Grass-Trees-Drives",
            "Stone-Steel-Towers",
        ),
        natural_colour=AVIRIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="pavia-university",
        title="Pavia University (ROSIS, 2001)",
        aliases=("PU", "UP", "PaviaU"),
        cube_file="PaviaU.mat",
        cube_key="paviaU",
        labels_file="PaviaU_gt.mat",
        labels_key="paviaU_gt",
        rows=610,
        cols=340,
        bands=103,
        class_names=_from_one(
            "Asphalt",
            "Meadows",
            "Gravel",
            "Trees",
            "Painted metal sheets",
            "Bare Soil",
            "Bitumen",
            "Self-Blocking Bricks",
            "Shadows",
        ),
        natural_colour=ROSIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="pavia-centre",
        title="Pavia Centre (ROSIS, 2001)",
        aliases=("PC", "PaviaC", "Pavia"),
        cube_file="Pavia.mat",
        cube_key="pavia",
        labels_file="Pavia_gt.mat",
        labels_key="pavia_gt",
        rows=1096,
        cols=715,
        bands=102,
        class_names=_from_one(
            "Water",
            "Trees",
            "Asphalt",
            "Self-Blocking Bricks",
            "Bitumen",
            "Tiles",
            "Shadows",
            "Meadows",
            "Bare Soil",
        ),
        natural_colour=ROSIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="salinas",
        title="Salinas (AVIRIS, 1998)",
        aliases=("SA", "SV"),
        cube_file="Salinas_corrected.mat",
        cube_key="salinas_corrected",
        labels_file="Salinas_gt.mat",
        labels_key="salinas_gt",
        rows=512,
        cols=217,
        bands=204,
        class_names=_SALINAS_CLASSES,
        natural_colour=AVIRIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="salinas-a",
        title="SalinasA (AVIRIS, 1998)",
        aliases=("SalinasA",),
        cube_file="SalinasA_corrected.mat",
        cube_key="salinasA_corrected",
        labels_file="SalinasA_gt.mat",
        labels_key="salinasA_gt",
        rows=83,
        cols=86,
        bands=204,
        class_names={label: _SALINAS_CLASSES[label] for label in (1, 10, 11, 12, 13, 14)},
        natural_colour=AVIRIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="ksc",
        title="Kennedy Space Center (AVIRIS, 1996)",
        aliases=("KSC",),
        cube_file="KSC.mat",
        cube_key="KSC",
        labels_file="KSC_gt.mat",
        labels_key="KSC_gt",
        rows=512,
        cols=614,
        bands=176,
        class_names=_from_one(
            "Scrub",
            "Willow swamp",
            "Cabbage palm hammock",
            "Cabbage palm/oak hammock",
            "Slash pine",
            "Oak/broadleaf hammock",
            "Hardwood swamp",
            "Graminoid marsh",
            "Spartina marsh",
            "Cattail marsh",
            "Salt marsh",
            "Mud flats",
            "Water",
        ),
    ),
    KnownScene(
        name="botswana",
        title="Botswana (Hyperion, 2001)",
        aliases=("BO",),
        cube_file="Botswana.mat",
        cube_key="Botswana",
        labels_file="Botswana_gt.mat",
        labels_key="Botswana_gt",
        rows=1476,
        cols=256,
        bands=145,
        class_names=_from_one(
            "Water",
            "Hippo grass",
            "Floodplain grasses 1",
            "Floodplain grasses 2",
            "Reeds",
            "Riparian",
            "Firescar",
            "Island interior",
            "Acacia woodlands",
            "Acacia shrublands",
            "Acacia grasslands",
            "Short mopane",
            "Mixed mopane",
            "Exposed soils",
        ),
    ),
)


def find_known_scene(name: str) -> KnownScene | None:
    """The scene with this name or alias, whatever its case, spaces, dashes and underscores."""
    wanted = _squash(name)
    for scene in KNOWN_SCENES:
        if wanted in {_squash(known) for known in (scene.name, *scene.aliases)}:
            return scene
    return None


def _squash(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
