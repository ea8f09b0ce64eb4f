"""Lists the known benchmark scenes with their files, sizes and classes.

Sizes, array names and class names are those of the publishers; most scenes are published by the
Computational Intelligence Group of the University of the Basque Country (EHU). Natural-colour bands
are 0-based.
"""

import re
from dataclasses import dataclass

AVIRIS_NATURAL_COLOUR = (27, 17, 8)  # about 650, 550 and 470 nm; band 43, often used as red, is near infrared
ROSIS_NATURAL_COLOUR = (55, 41, 12)
_EHU = "https://www.ehu.eus/ccwintco/uploads"
_WHU = "http://rsidea.whu.edu.cn (WHU-Hi data sharing)"
_GITHUB = "https://github.com/gokriznastic/HybridSN/raw/master/data"
# Per file: name, folder at EHU, size in bytes (0 if unknown), SHA-256.
_PUBLISHED = """\
Indian_pines_corrected.mat 6/67 5953527 ec2f8808710919d566f70f0d4aa885aae1ddfd42b734aba71c5e12ca65450939
Indian_pines_gt.mat c/c4 1125 65c4687a8ab04f6da4789799bc3bc4f6e88bccac3ed6a2e6ae367e5e6b9e429c
PaviaU.mat e/ee 34806917 28447fa87f7a5797845e9a189c0da85e23b1d06a4ba7361e5ff44efbf834d2fb
PaviaU_gt.mat 5/50 11005 23f6a426928f9b32984adffe659e29f554f9fb6c93b5a107528d308d5087a829
Pavia.mat e/e3 0 b60341da323fd271cd97dd6d7a69514d385ccd7fdfc5a60c4ff5994b047f152e
Pavia_gt.mat 5/53 34887 7eb54ab81b404dd3ae572e6d0ec211595029e5a847bec2cfb8f9e72d07066b69
Salinas_corrected.mat a/a3 26552770 5ec1c0d22f56d18ecd336f8e35735863c0f160682e04e0c18ef3f89a3334d87d
Salinas_gt.mat f/fa 4277 ecfab4d31ef5553f097943235d8ea502038eb4a2067b2ad10b33e37c949955e2
SalinasA_corrected.mat d/df 1539086 d75684ed3ab71a1024cee0f9db9061f50a3523a92ff5edfbbb1eed976b9f1721
SalinasA_gt.mat a/aa 587 17814c1d3296c0e29b27f320f2c4174d2a68adb87e376abe78f02923e2c2e454
KSC.mat 2/26 56824624 b1ad011cfdb65c853e4f9f6108ca4774467d87f90a5c23b74ff3a2984a3b4786
KSC_gt.mat a/a6 3240 a1d6ab9293691006bd4d9742d1a1e1c141b1aaa5fbc5fa128b33c1d09038510b
Botswana.mat 7/72 78911133 f1603903c844cdc2980550b0180688e8e1a72d4292595d1120e1dec2a80a91c7
Botswana_gt.mat 5/58 4039 668394905e10e629c16584bfd02b0f533b96d6ba18a63274a94ff3a77126a887
"""


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """One file of a scene.

    Attributes:
        names: accepted file names; `scene fetch` writes the first.
        keys: names of its arrays; several label maps are merged into one.
        sources: URLs in the order in which they are tried.
        num_bytes, sha256: size in bytes and checksum, if known.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    sources: tuple[str, ...] = ()
    num_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class KnownScene:
    """One known scene: its two files, size, sensor and classes.

    Attributes:
        shape: `(rows, cols, bands)`.
        class_names: name of each label.
        sensor: name of the sensor.
        gsd_m: ground sampling distance in metres.
        wavelengths_nm: first and last wavelength in nanometres.
        natural_colour: 0-based red, green and blue bands, if known.
        registration: website that requires registration, for files that cannot be downloaded directly.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    cube: KnownFile
    labels: KnownFile
    shape: tuple[int, int, int]
    class_names: dict[int, str]
    sensor: str
    gsd_m: float
    wavelengths_nm: tuple[int, int]
    natural_colour: tuple[int, int, int] | None = None
    registration: str | None = None


def _from_one(names: str) -> dict[int, str]:
    """Returns comma-separated names as a dictionary with labels from 1."""
    return dict(enumerate(names.split(", "), start=1))


def _public(name: str, key: str, *mirrors: str, also: tuple[str, ...] = ()) -> KnownFile:
    """Returns a file published by EHU, with further download folders in `mirrors`."""
    rows = (line.split() for line in _PUBLISHED.splitlines())
    folder, num_bytes, sha256 = next(facts for published, *facts in rows if published == name)
    return KnownFile(
        names=(name, *also),
        keys=(key,),
        sources=tuple(f"{base}/{name}" for base in (f"{_EHU}/{folder}", *mirrors)),
        num_bytes=int(num_bytes) or None,
        sha256=sha256,
    )


def _hugging_face(folder: str) -> str:
    return f"https://huggingface.co/datasets/danaroth/{folder}/resolve/main"


def _registered(name: str, *keys: str) -> KnownFile:
    return KnownFile(names=(name,), keys=keys)


_SALINAS_CLASSES = _from_one(
    "Brocoli_green_weeds_1, Brocoli_green_weeds_2, Fallow, Fallow_rough_plow, "
    "Fallow_smooth, Stubble, Celery, Grapes_untrained, Soil_vinyard_develop, "
    "Corn_senesced_green_weeds, Lettuce_romaine_4wk, Lettuce_romaine_5wk, "
    "Lettuce_romaine_6wk, Lettuce_romaine_7wk, Vinyard_untrained, "
    "Vinyard_vertical_trellis"
)

KNOWN_SCENES = (
    KnownScene(
        name="indian-pines",
        title="Indian Pines (AVIRIS, 1992)",
        aliases=("IP", "IN"),
        cube=_public(
            "Indian_pines_corrected.mat", "indian_pines_corrected", _hugging_face("indian_pines"), _GITHUB
        ),
        labels=_public("Indian_pines_gt.mat", "indian_pines_gt", _hugging_face("indian_pines"), _GITHUB),
        shape=(145, 145, 200),
        sensor="AVIRIS",
        gsd_m=20.0,
        wavelengths_nm=(400, 2500),
        class_names=_from_one(
            "Alfalfa, Corn-notill, Corn-mintill, Corn, Grass-pasture, Grass-trees, Grass-pasture-"
            "mowed, Hay-windrowed, Oats, Soybean-notill, Soybean-mintill, Soybean-clean, Wheat, "
            "Woods, Buildings-Grass-Trees-Drives, Stone-Steel-Towers"
        ),
        natural_colour=AVIRIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="pavia-university",
        title="Pavia University (ROSIS, 2001)",
        aliases=("PU", "UP", "PaviaU"),
        cube=_public("PaviaU.mat", "paviaU", _hugging_face("pavia"), _GITHUB),
        labels=_public("PaviaU_gt.mat", "paviaU_gt", _hugging_face("pavia"), _GITHUB),
        shape=(610, 340, 103),
        sensor="ROSIS",
        gsd_m=1.3,
        wavelengths_nm=(430, 860),
        class_names=_from_one(
            "Asphalt, Meadows, Gravel, Trees, Painted metal sheets, Bare Soil, Bitumen, Self-"
            "Blocking Bricks, Shadows"
        ),
        natural_colour=ROSIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="pavia-centre",
        title="Pavia Centre (ROSIS, 2001)",
        aliases=("PC", "PaviaC", "Pavia"),
        cube=_public("Pavia.mat", "pavia", _hugging_face("pavia")),
        labels=_public("Pavia_gt.mat", "pavia_gt", _hugging_face("pavia"), also=("PaviaC_gt.mat",)),
        shape=(1096, 715, 102),
        sensor="ROSIS",
        gsd_m=1.3,
        wavelengths_nm=(430, 860),
        class_names=_from_one(
            "Water, Trees, Asphalt, Self-Blocking Bricks, Bitumen, Tiles, Shadows, Meadows, Bare Soil"
        ),
        natural_colour=ROSIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="salinas",
        title="Salinas (AVIRIS, 1998)",
        aliases=("SA", "SV"),
        cube=_public("Salinas_corrected.mat", "salinas_corrected", _hugging_face("salinas"), _GITHUB),
        labels=_public("Salinas_gt.mat", "salinas_gt", _hugging_face("salinas"), _GITHUB),
        shape=(512, 217, 204),
        sensor="AVIRIS",
        gsd_m=3.7,
        wavelengths_nm=(400, 2500),
        class_names=_SALINAS_CLASSES,
        natural_colour=AVIRIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="salinas-a",
        title="SalinasA (AVIRIS, 1998)",
        aliases=("SalinasA",),
        cube=_public("SalinasA_corrected.mat", "salinasA_corrected", _hugging_face("salinas")),
        labels=_public("SalinasA_gt.mat", "salinasA_gt", _hugging_face("salinas")),
        shape=(83, 86, 204),
        sensor="AVIRIS",
        gsd_m=3.7,
        wavelengths_nm=(400, 2500),
        class_names={label: _SALINAS_CLASSES[label] for label in (1, 10, 11, 12, 13, 14)},
        natural_colour=AVIRIS_NATURAL_COLOUR,
    ),
    KnownScene(
        name="ksc",
        title="Kennedy Space Center (AVIRIS, 1996)",
        aliases=("KSC",),
        cube=_public("KSC.mat", "KSC"),
        labels=_public("KSC_gt.mat", "KSC_gt"),
        shape=(512, 614, 176),
        sensor="AVIRIS",
        gsd_m=18.0,
        wavelengths_nm=(400, 2500),
        class_names=_from_one(
            "Scrub, Willow swamp, Cabbage palm hammock, Cabbage palm/oak hammock, Slash pine, "
            "Oak/broadleaf hammock, Hardwood swamp, Graminoid marsh, Spartina marsh, Cattail "
            "marsh, Salt marsh, Mud flats, Water"
        ),
    ),
    KnownScene(
        name="botswana",
        title="Botswana (Hyperion, 2001)",
        aliases=("BO",),
        cube=_public("Botswana.mat", "Botswana"),
        labels=_public("Botswana_gt.mat", "Botswana_gt"),
        shape=(1476, 256, 145),
        sensor="Hyperion",
        gsd_m=30.0,
        wavelengths_nm=(400, 2500),
        class_names=_from_one(
            "Water, Hippo grass, Floodplain grasses 1, Floodplain grasses 2, Reeds, Riparian, "
            "Firescar, Island interior, Acacia woodlands, Acacia shrublands, Acacia grasslands, "
            "Short mopane, Mixed mopane, Exposed soils"
        ),
    ),
    KnownScene(
        name="houston-2013",
        title="Houston 2013 (CASI, 2012)",
        aliases=("HU", "Houston", "Houston13"),
        cube=_registered("2013_IEEE_GRSS_DF_Contest_CASI.tif", ""),
        labels=_registered("houston_gt.mat", "houston_gt_tr", "houston_gt_te"),
        shape=(349, 1905, 144),
        sensor="ITRES CASI-1500",
        gsd_m=2.5,
        wavelengths_nm=(380, 1050),
        class_names=_from_one(
            "Healthy grass, Stressed grass, Synthetic grass, Trees, Soil, Water, Residential, "
            "Commercial, Road, Highway, Railway, Parking Lot 1, Parking Lot 2, Tennis Court, "
            "Running Track"
        ),
        registration="https://hyperspectral.ee.uh.edu (2013 IEEE GRSS Data Fusion Contest)",
    ),
    KnownScene(
        name="whu-hi-longkou",
        title="WHU-Hi LongKou",
        aliases=("LK", "LongKou"),
        cube=_registered("WHU_Hi_LongKou.mat", "WHU_Hi_LongKou"),
        labels=_registered("WHU_Hi_LongKou_gt.mat", "WHU_Hi_LongKou_gt"),
        shape=(550, 400, 270),
        sensor="Headwall Nano-Hyperspec",
        gsd_m=0.463,
        wavelengths_nm=(400, 1000),
        class_names=_from_one(
            "Corn, Cotton, Sesame, Broad-leaf soybean, Narrow-leaf soybean, Rice, Water, Roads "
            "and houses, Mixed weed"
        ),
        registration=_WHU,
    ),
    KnownScene(
        name="whu-hi-hanchuan",
        title="WHU-Hi HanChuan",
        aliases=("HC", "HanChuan"),
        cube=_registered("WHU_Hi_HanChuan.mat", "WHU_Hi_HanChuan"),
        labels=_registered("WHU_Hi_HanChuan_gt.mat", "WHU_Hi_HanChuan_gt"),
        shape=(1217, 303, 274),
        sensor="Headwall Nano-Hyperspec",
        gsd_m=0.109,
        wavelengths_nm=(400, 1000),
        class_names=_from_one(
            "Strawberry, Cowpea, Soybean, Sorghum, Water spinach, Watermelon, Greens, Trees, "
            "Grass, Red roof, Gray roof, Plastic, Bare soil, Road, Bright object, Water"
        ),
        registration=_WHU,
    ),
    KnownScene(
        name="whu-hi-honghu",
        title="WHU-Hi HongHu",
        aliases=("HH", "HongHu"),
        cube=_registered("WHU_Hi_HongHu.mat", "WHU_Hi_HongHu"),
        labels=_registered("WHU_Hi_HongHu_gt.mat", "WHU_Hi_HongHu_gt"),
        shape=(940, 475, 270),
        sensor="Headwall Nano-Hyperspec",
        gsd_m=0.043,
        wavelengths_nm=(400, 1000),
        class_names=_from_one(
            "Red roof, Road, Bare soil, Cotton, Cotton firewood, Rape, Chinese cabbage, Pakchoi, "
            "Cabbage, Tuber mustard, Brassica parachinensis, Brassica chinensis, Small Brassica "
            "chinensis, Lactuca sativa, Celtuce, Film covered lettuce, Romaine lettuce, Carrot, "
            "White radish, Garlic sprout, Broad bean, Tree"
        ),
        registration=_WHU,
    ),
)


def find_known_scene(name: str) -> KnownScene | None:
    """Returns the scene with this name or alias; case, spaces, dashes and underscores are ignored."""
    wanted = _squash(name)
    for scene in KNOWN_SCENES:
        if wanted in {_squash(known) for known in (scene.name, *scene.aliases)}:
            return scene
    return None


def guess_known_scene(rows: int, cols: int, *, bands: int | None = None) -> KnownScene | None:
    """Returns the known scene of this size, or None; `bands` is compared only if given."""
    for scene in KNOWN_SCENES:
        if scene.shape[:2] == (rows, cols) and bands in (None, scene.shape[2]):
            return scene
    return None


def _squash(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
