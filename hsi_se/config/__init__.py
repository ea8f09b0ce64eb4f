"""Settings: frozen pydantic models for every section of a config, and reading them from YAML."""
