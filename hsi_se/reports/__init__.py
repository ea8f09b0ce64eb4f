"""The report page, its pictures and its tables."""
