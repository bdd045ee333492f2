"""Equations of the papers: losses, targets and returns."""
