ENVIRONMENTS = {     # name -> "module:attribute", imported when used
    "signpost": "signpost.environment:Signpost",
    "cartpole-noisy": "signpost.noisy:noisy_cartpole",
    "bsuite/Catch": "signpost.bsuite:Bsuite",
}
ALGORITHMS = {"awr": "signpost.awr:AWR"}
NETWORKS = {"residual": "signpost.torso:Residual"}
SEARCHES = {"half-time": "signpost.half:HalfTime"}
