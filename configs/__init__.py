"""The YAML configs of jaxrl, installed as the package `jaxrl_configs` so that Hydra finds them under pkg://."""
