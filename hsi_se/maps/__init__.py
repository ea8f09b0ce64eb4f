"""Maps as files: ENVI, GeoTIFF and PNG, written in bounded memory and resumable."""
