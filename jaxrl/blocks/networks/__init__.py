"""Networks as values, the flax modules behind them, and distributions of actions."""
