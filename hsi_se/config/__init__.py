"""Settings: every section of a config as frozen pydantic models, and the YAML they are read from."""
