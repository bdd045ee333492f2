"""The algorithms by name, one paper per file.

Entries are imported when used, so listing is quick.
"""

ALGORITHMS = {
    "pg": "algos.pg:PG",
    "a2c": "algos.a2c:A2C",
    "ppo": "algos.ppo:PPO",
    "dqn": "algos.dqn:DQN",
    "c51": "algos.dqn:C51",
    "qrdqn": "algos.dqn:QRDQN",
    "iqn": "algos.dqn:IQN",
    "rainbow": "algos.dqn:RAINBOW",
    "r2d2": "algos.r2d2:R2D2",
    "pqn": "algos.pqn:PQN",
    "ddpg": "algos.ddpg:DDPG",
    "td3": "algos.ddpg:TD3",
    "sac": "algos.sac:SAC",
    "es": "algos.es:ES",
    "ars": "algos.ars:ARS",
    "evosax": "algos.evosax:EVOSAX",
}
