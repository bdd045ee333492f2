"""Many learners at once: blocks of members, population-based training, searches over trials."""

SEARCHES = {        # built-in searches of `jaxrl sweep`; packages add theirs by `jaxrl.searches`
    "grid": "jaxrl.population.trials:Grid",
    "random": "jaxrl.population.trials:Random",
    "asha": "jaxrl.population.trials:Halving",
    "optuna": "jaxrl.population.trials:TPE",
}
