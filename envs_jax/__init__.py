"""Environments as pure functions: spaces, environments, wrappers, and a vectoriser with auto-reset."""

ENVIRONMENTS = {
    "cartpole": "envs_jax.classic.cartpole:CartPole",
}
