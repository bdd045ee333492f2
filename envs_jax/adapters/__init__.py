"""Adapters of other packages to the protocol of envs_jax/core.py, one file for each package."""
