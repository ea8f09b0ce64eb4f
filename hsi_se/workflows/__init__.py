"""Workflows: one public function for each command."""
