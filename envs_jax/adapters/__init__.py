"""Environments of other packages behind the protocol of envs_jax/core.py, one small file per package."""
