"""Reports on runs, sweeps and populations: pages, charts, films, TensorBoard."""
