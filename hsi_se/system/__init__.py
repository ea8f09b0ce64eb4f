"""Files, locks, processes, memory and clusters: what the operating system is asked for."""
