"""Pure functions: what the algorithms are made from."""

NETWORKS = {        # the torsos of networks/ by name; other packages add theirs by the entry point `jaxrl.networks`
    "mlp": "jaxrl.blocks.networks.modules:MLP",
    "cnn": "jaxrl.blocks.networks.modules:CNN",
}
