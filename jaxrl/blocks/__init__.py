"""Pure functions that the algorithms are composed of."""

# The torsos of networks/ by name. Other packages add theirs by the entry point `jaxrl.networks`.
NETWORKS = {
    "mlp": "jaxrl.blocks.networks.modules:MLP",
    "cnn": "jaxrl.blocks.networks.modules:CNN",
}
