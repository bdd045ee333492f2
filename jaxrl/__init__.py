"""jaxrl: vectorised reinforcement learning in JAX."""
