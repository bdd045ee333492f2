"""The algorithms, one paper per file, by name. Entries are imported when used, so that listing them is quick."""

ALGORITHMS = {
    "pg": "algos.pg:PG",
    "a2c": "algos.a2c:A2C",
    "ppo": "algos.ppo:PPO",
    "dqn": "algos.dqn:DQN",
}
