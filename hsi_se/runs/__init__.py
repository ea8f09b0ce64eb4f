"""Run folders: the files that training writes, and how they are read back."""
