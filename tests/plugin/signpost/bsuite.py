"""An adapter: environments of another package (here gymnax) with our protocol."""

from envs_jax.adapters.adapter import Adapter, space_of


class Bsuite(Adapter):
    """A bsuite environment of gymnax by its gymnax name: `bsuite/Catch`."""

    suite = "bsuite"

    @classmethod
    def constructor(cls, id):
        import gymnax  # here, not at the top: listing names imports nothing

        return lambda: gymnax.make(f"{id}-bsuite")[0]

    @property
    def default_params(self):
        return self.theirs.default_params

    def start(self, key, params):
        return self.theirs.reset_env(key, params)

    def advance(self, key, state, action, params):
        # step_env does not reset the environment at the end of an episode
        obs, state, reward, terminated, info = self.theirs.step_env(key, state, action, params)
        return obs, state, reward, terminated, self.theirs.is_truncated(state, params), info

    def observation_space(self, params):
        return space_of(self.theirs.observation_space(params))

    def action_space(self, params):
        return space_of(self.theirs.action_space(params))
