"""Pure functions: what the algorithms are made from."""

NETWORKS = {        # the torsos of networks.py by name; other packages add theirs by the entry point `jaxrl.networks`
    "mlp": "jaxrl.blocks.modules:MLP",
    "cnn": "jaxrl.blocks.modules:CNN",
}
