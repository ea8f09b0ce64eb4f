"""Files, folders, locks, processes, memory and clusters: everything that concerns the operating system."""
