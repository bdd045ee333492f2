"""Runs, sweeps and populations to look at: pages, charts, films, TensorBoard."""
