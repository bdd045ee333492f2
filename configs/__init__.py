"""YAML configs of jaxrl, installed as the package `jaxrl_configs` for Hydra's pkg:// paths."""
