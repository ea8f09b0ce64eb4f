"""Small files in the documented structures of mission products, each of the same invented scene.

The structures are those that `hsi_se/scene/products.toml` cites. Every writer returns the path to name.
"""

from pathlib import Path

import h5py
import numpy as np
import rasterio
import spectral.io.envi
from affine import Affine
from rasterio.crs import CRS

ROWS, COLS, BANDS = 7, 6, 8
NM = np.array([450.0, 550.0, 650.0, 750.0, 1340.0, 1400.0, 1650.0, 2200.0])
FWHM = np.linspace(6, 13, BANDS)
CUBE = np.random.default_rng(0).integers(100, 6000, (ROWS, COLS, BANDS)) / 10_000  # reflectance
CUBE[6, 5, 4] = 0.01  # PRISMA stores it as 0
HOLE = (slice(0, 2), slice(3, 5))  # without data, where a product has such pixels
NORTH_UP = (30.0, 0.0, 500000.0, 0.0, -30.0, 4600000.0)
BAD = 5  # the band at 1400 nm, which is bad in the products that say so


def write_prisma(folder: Path, *, corners: bool = True) -> Path:
    """Two detectors, rows × bands × cols, from long to short wavelengths; each list has a lacking band, at 0."""
    path = folder / "PRS_L2D_STD_20230101.he5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"Epsg_Code": 32633, "Product_ULcorner_easting": 500000.0})
        file.attrs["Product_ULcorner_northing"] = 4600000.0
        if corners:  # the centres of the corner pixels
            file.attrs.update({"Product_ULcorner_easting": 500015.0, "Product_ULcorner_northing": 4599985.0})
            file.attrs["Product_LRcorner_easting"] = 500015.0 + 30 * (COLS - 1)
            file.attrs["Product_LRcorner_northing"] = 4599985.0 - 30 * (ROWS - 1)
        for name, bands, low, high in (("Vnir", [3, 2, 1, 0], 0.0, 0.7), ("Swir", [7, 6, 5, 4], 0.01, 0.9)):
            stored = np.zeros((ROWS, len(bands) + 1, COLS), np.uint16)
            stored[:, 1:] = np.rint((CUBE[..., bands] - low) / (high - low) * 65535).transpose(0, 2, 1)
            stored[HOLE[0], :, HOLE[1]] = 0  # in all bands; elsewhere 0 is a value
            file[f"HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/{name.upper()}_Cube"] = stored
            file.attrs[f"List_Cw_{name}"] = np.append(0, NM[bands])
            file.attrs[f"List_Fwhm_{name}"] = np.append(0, FWHM[bands])
            file.attrs[f"L2Scale{name}Min"], file.attrs[f"L2Scale{name}Max"] = low, high
            flags = [0, *(int(band != BAD) for band in bands)]
            file.attrs[f"List_Cw_{name}_Flags"] = np.array(flags, np.uint8)
        file["HDFEOS/SWATHS/PRS_L2D_PCO/Data Fields/Cube"] = np.zeros((ROWS, COLS), np.uint16)
    return path


def write_emit(folder: Path) -> Path:
    path = folder / "EMIT_L2A_RFL_001_20230316T045133.nc"
    stored = CUBE.astype(np.float32)
    stored[HOLE] = -9999
    with h5py.File(path, "w") as file:
        file.create_dataset("reflectance", data=stored, chunks=(4, 3, BANDS)).attrs["_FillValue"] = np.float32(-9999)
        bands = file.create_group("sensor_band_parameters")
        bands["wavelengths"], bands["fwhm"] = NM.astype(np.float32), FWHM.astype(np.float32)
        bands["good_wavelengths"] = (np.arange(BANDS) != BAD).astype(np.float32)
        bands["wavelengths"].attrs["units"] = "nm"
        file.attrs["spatial_ref"], file.attrs["geotransform"] = "EPSG:4326", [-117.1, 5e-4, 0, 35.1, 0, -5e-4]
        # The ground lies a quarter turn from the swath, with an empty line on top and one gap filled.
        rows, cols = np.mgrid[1 : ROWS + 1, 1 : COLS + 1]
        glt_x, glt_y = (np.vstack([np.zeros((1, ROWS), int), np.rot90(part)]) for part in (cols, rows))
        glt_x[2, 3], glt_y[2, 3] = -glt_x[2, 3], -glt_y[2, 3]
        file["location/glt_x"], file["location/glt_y"] = glt_x.astype(np.int32), glt_y.astype(np.int32)
        file["location/lat"] = np.zeros((ROWS, COLS))
    return path


def write_tanager(folder: Path, *, kind: str = "SWATHS", zone: int = 33) -> Path:
    path = folder / f"20250608_091605_90_4001_{kind.lower()}_sr_hdf5.h5"
    stored = np.moveaxis(CUBE, 2, 0).astype(np.float32)
    stored[:, *HOLE] = -9999
    with h5py.File(path, "w") as file:
        cube = file.create_dataset(f"HDFEOS/{kind}/HYP/Data Fields/surface_reflectance", data=stored)
        good = (np.arange(BANDS) != BAD).astype(np.uint8)
        cube.attrs.update({"_FillValue": np.float32(-9999), "wavelengths": NM, "fwhm": FWHM, "good_wavelengths": good})
        file[f"HDFEOS/{kind}/HYP/Data Fields/nodata_pixels"] = np.zeros((ROWS, COLS), np.uint8)
        if kind == "GRIDS":
            east, south = 500000 + 30 * COLS, 4600000 - 30 * ROWS
            text = f"UpperLeftPointMtrs=(500000.00,4600000.00)\n\t\tLowerRightMtrs=({east}.00,{south}.00)\n"
            text += f"\t\tProjection=HE5_GCTP_UTM\n\t\tZoneCode={zone}\n"
            file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_(text)
    return path


def write_neon(folder: Path) -> Path:
    path = folder / "NEON_D02_SERC_DP3_368000_4306000_bidirectional_reflectance.h5"
    stored = np.rint(CUBE * 10_000).astype(np.int16)
    stored[HOLE] = -9999
    with h5py.File(path, "w") as file:
        group = file.create_group("SERC/Reflectance")
        group.attrs.update({"Band_Window_1_Nanometers": [1390, 1445], "Band_Window_2_Nanometers": [1790, 1955]})
        group["Reflectance_Data"] = stored
        group["Reflectance_Data"].attrs.update({"Data_Ignore_Value": -9999.0, "Scale_Factor": 10000.0})
        group["Metadata/Spectral_Data/Wavelength"], group["Metadata/Spectral_Data/FWHM"] = NM, FWHM
        group["Metadata/Spectral_Data/Wavelength"].attrs["Units"] = "nanometers"
        place = group.create_group("Metadata/Coordinate_System")
        place["Map_Info"] = "UTM, 1.000, 1.000, 500000.00, 4600000.00, 30.0, 30.0, 33, North, WGS-84, units=Meters"
        place["EPSG Code"] = np.bytes_("32633")
        group["Metadata/Ancillary_Imagery/Haze_Water_Map"] = np.zeros((ROWS, COLS), np.uint8)
    return path


def write_aviris(folder: Path, *, with_transform: bool = True) -> Path:
    """CF-1.6: wavelength × northing × easting in the group `reflectance`, coordinates at the root."""
    path = folder / "AV320231005t181518_L2A_OE_RFL_ORT.nc"
    stored = np.moveaxis(CUBE, 2, 0).astype(np.float32)
    stored[:, *HOLE] = -9999
    with h5py.File(path, "w") as file:
        coordinates = {"northing": 4599985.0 - 30 * np.arange(ROWS), "easting": 500015.0 + 30 * np.arange(COLS)}
        for name, values in {**coordinates, "reflectance/wavelength": NM}.items():
            file[name] = values
            file[name].make_scale(name.rpartition("/")[2])
        file["reflectance/wavelength"].attrs["units"] = "nm"
        file["reflectance/fwhm"] = FWHM
        cube = file.create_dataset("reflectance/reflectance", data=stored, chunks=(4, 4, 3))
        cube.attrs.update({"_FillValue": np.float32(-9999), "grid_mapping": "transverse_mercator"})
        for axis, name in enumerate(("reflectance/wavelength", "northing", "easting")):
            cube.dims[axis].attach_scale(file[name])
        mapping = file.create_dataset("transverse_mercator", data=b"")
        mapping.attrs["spatial_ref"] = CRS.from_epsg(32633).to_wkt()
        if with_transform:
            mapping.attrs["GeoTransform"] = "500000.0 30.0 0 4600000.0 0 -30.0"
    return path


def write_aviris_envi(folder: Path) -> Path:
    stored = CUBE.astype(np.float32)
    stored[HOLE] = -9999
    facts = {
        "wavelength": NM.tolist(), "fwhm": FWHM.tolist(), "wavelength units": "Nanometers", "data ignore value": -9999,
        "map info": ["UTM", 1, 1, 500000, 4600000, 30, 30, 33, "North", "WGS-84", "units=Meters"],
    }  # fmt: skip
    path = folder / "ang20160910t185702_rfl_img.hdr"
    spectral.io.envi.save_image(str(path), stored, interleave="bil", ext="", metadata=facts)
    return path.with_suffix("")


def write_tiff(path: Path, cube: np.ndarray, **profile: object) -> Path:
    rows, cols, bands = cube.shape
    place = {"crs": CRS.from_epsg(32633), "transform": Affine(*NORTH_UP)}
    shape = {"height": rows, "width": cols, "count": bands, "dtype": cube.dtype}
    with rasterio.open(path, "w", driver="GTiff", **(shape | place | profile)) as image:
        image.write(np.moveaxis(cube, 2, 0))
    return path


def write_dlr(folder: Path, kind: str) -> Path:
    """EnMAP or DESIS L2A: a TIFF without a word on its bands, and XML."""
    stem, ending = {"EnMAP": ("ENMAP01-____L2A-DT0000001234_20230724T104526Z_001", "XML"),
                    "DESIS": ("DESIS-HSI-L2A-DT0401337920_004-20190911T230420", "xml")}[kind]  # fmt: skip
    stored = np.rint(CUBE * 10_000).astype(np.int16)
    stored[HOLE] = -32768
    image = write_tiff(folder / f"{stem}-SPECTRAL_IMAGE.{ending.replace('XML', 'TIF').replace('xml', 'tif')}", stored)
    write_tiff(folder / f"{stem}-QL_QUALITY_CLOUD.tif", np.zeros((ROWS, COLS, 1), np.uint8))
    names = {"EnMAP": ("bandID", "FWHMOfBand", "GainOfBand", "OffsetOfBand"),
             "DESIS": ("band", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand")}[kind]  # fmt: skip
    band, width, gain, offset = names
    bands = "".join(
        f'<{band} number="{number}"><wavelengthCenterOfBand>{nm}</wavelengthCenterOfBand><{width}>{fwhm}</{width}>'
        f"<{gain}>0.0001</{gain}><{offset}>0</{offset}></{band}>"
        for number, (nm, fwhm) in enumerate(zip(NM, FWHM, strict=True), start=1)
    )
    text = f"<backgroundValue>-32768</backgroundValue><bandCharacterisation>{bands}</bandCharacterisation>"
    if kind == "EnMAP":
        usable = {"vnir": "1,2,3,4", "swir": ",".join(str(band + 1) for band in range(4, BANDS) if band != BAD)}
        for name, good in usable.items():
            text += f"<{name}ProductQuality><expectedChannelsList>{good}</expectedChannelsList></{name}ProductQuality>"
    text = f"<specific>{text}</specific>"
    # DESIS names bands in another section too.
    text += "<interiorOrientation><band><bandNumber>1</bandNumber></band></interiorOrientation>"
    (folder / f"{stem}-METADATA.{ending}").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<level_X>{text}</level_X>'
    )
    return image
