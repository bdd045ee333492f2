"""A search: the worse half of the trials stops at half time."""

from jaxrl.population.trials import Round, Search, draw


class HalfTime(Search):
    """Random trials; the worse half of them stops after half of the steps."""

    def __init__(self, options, axes, total_steps, seed):
        trials = draw(axes, options.trials, seed)
        self.total_steps = total_steps
        self.rounds = [Round("first", trials, total_steps // 2)]

    def stop(self):
        return not self.rounds

    def ask(self):
        return self.rounds[0]

    def tell(self, scores):      # number of a trial -> score, NaN if it diverged
        last = self.rounds.pop()
        alive = [trial for trial in last.trials if scores[trial.number] == scores[trial.number]]
        alive.sort(key=lambda trial: -scores[trial.number])
        half = (len(alive) + 1) // 2
        if alive and last.name == "first":
            worse = {trial.number: "in the worse half" for trial in alive[half:]}
            self.rounds = [Round("second", alive[:half], self.total_steps, worse)]
