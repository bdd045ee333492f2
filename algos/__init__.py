"""The algorithms, one paper per file, by name. Entries are imported when used, so that listing them is quick."""

ALGORITHMS = {
    "ppo": "algos.ppo:PPO",
}
