"""The annotations of the building blocks and the algorithms, checked by beartype at every call."""

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from beartype import beartype
from jaxtyping import Array, Bool, Float, Int, jaxtyped

import algos
import envs_jax
import jaxrl
from envs_jax import spaces
from envs_jax.core import spec
from envs_jax.vector import VectorEnv
from jaxrl import blocks
from jaxrl.blocks.losses import policy as losses
from jaxrl.blocks.losses import returns
from jaxrl.blocks.networks.actor_critic import NetworkConfig, actor_critic, example
from jaxrl.blocks.networks.distributions import action_head
from jaxrl.blocks.shuffle import permutation
from jaxrl.declare import declarations, hypers
from jaxrl.drivers.build import build
from tests.test_contract import SMALL

T = 5
B = 3
shaped = jaxtyped(typechecker=beartype)

# Names that annotations use and that no module imports at run time. A Protocol is not checked.
NAMES = {name: getattr(jaxtyping, name)
         for name in ("Array", "Bool", "Float", "Int", "PRNGKeyArray", "Shaped")}
RESOLVED = NAMES | {"Distribution": Any}


def modules() -> list[types.ModuleType]:
    """Return all modules of the blocks and the algorithms."""
    packages = (algos, blocks)
    found = [info.name for package in packages
             for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in found]


def shapes_of(function: types.FunctionType) -> dict[str, Any]:
    """Return the annotations of a function that name shapes, resolved."""
    text = {name: value for name, value in function.__annotations__.items()
            if isinstance(value, str) and any(f"{word}[" in value for word in NAMES)}
    bare = types.SimpleNamespace(__annotations__=text)
    return typing.get_type_hints(bare, globalns=function.__globals__, localns=RESOLVED)


def checked(function: types.FunctionType) -> Callable:
    """Return the function with its shapes checked at every call."""
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__,
                              function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__annotations__ = shapes_of(function)
    return shaped(copy)


def functions() -> Iterator[tuple[Any, str, types.FunctionType]]:
    """Yield (owner, name, function) of all functions and methods, but those of flax modules."""
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, types.FunctionType):
                yield module, name, value
            elif inspect.isclass(value) and value.__module__ == module.__name__:
                if issubclass(value, nn.Module) or getattr(value, "_is_protocol", False):
                    continue
                yield from ((value, key, method) for key, method in vars(value).items()
                            if isinstance(method, types.FunctionType))


@pytest.fixture(scope="module", autouse=True)
def all_checked() -> Iterator[int]:
    """Check the shapes of every function while these tests run, and return how many there are."""
    done: dict[types.FunctionType, Callable] = {}
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, function in list(functions()):
            if function not in done and "<string>" not in function.__code__.co_filename:
                done[function] = checked(function) if shapes_of(function) else function
            if done.get(function, function) is not function:
                patch.setattr(owner, name, done[function])
        yield sum(new is not old for old, new in done.items())


def test_a_permutation_has_its_length():
    assert permutation(jax.random.key(0), 7).shape == (7,)


def test_most_functions_state_shapes(all_checked):
    assert all_checked > 150


def test_no_module_imports_jaxtyping_at_run_time():
    imported = {"Array", "Float", "Int", "Bool", "PRNGKeyArray"}
    assert not [module.__name__ for module in modules() if imported & set(vars(module))]


def test_returns_and_losses():
    reward = jnp.ones((T, B))
    ended = jnp.zeros((T, B), bool)
    x = jnp.ones(7)
    returns.gae(reward, reward, reward, ended, ended, gamma=0.9, lam=0.9)
    returns.lambda_returns(reward, reward, ended, ended, gamma=0.9, lam=0.9)
    returns.n_step_returns(reward, reward, ended, ended, gamma=0.9, n=2)
    returns.discounted_returns(reward, reward, ended, ended, gamma=0.9)
    losses.ppo_clip(x, x, epsilon=0.2)
    losses.clipped_value(x, x, x, epsilon=0.2)
    losses.approx_kl(x)
    losses.clip_fraction(x, epsilon=0.2)
    losses.standardize(x)


def test_a_wrong_shape_is_an_error():
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.ppo_clip(jnp.ones(7), jnp.ones(6), epsilon=0.2)
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(first_row)(jnp.ones((T, B)))


def first_row(reward: 'Float[Array, "T B"]') -> 'Float[Array, "T B"]':
    """Return less than the annotation promises."""
    return reward[0]


@pytest.mark.parametrize("algo", [
    "ppo", "pqn", "rainbow", "iqn", "r2d2", "td3", "sac", "es", "ars"])
def test_algorithms(algo):
    continuous = str(algo == "td3").lower()
    place = [f"algo={algo}", "env=probe-both", f"env.params.continuous={continuous}"]
    known = {d.name for d in declarations(jaxrl.compose(place).algorithm().config)}
    small = [f"algo.{name}={value}" for name, value in SMALL.items() if name in known]
    config = jaxrl.compose([*place, *small])
    runner = build(config).runner
    hyper = hypers(config.agent)

    def run(key):
        return runner.advance(runner.init(key, hyper, 2), 1)

    jax.eval_shape(run, jax.random.key(0))


SPACES = {
    "discrete": (spaces.Discrete(4), Int[Array, "T B"]),
    "multidiscrete": (spaces.MultiDiscrete((2, 3)), Int[Array, "T B 2"]),
    "box": (spaces.Box(-2.0, 2.0, (2,)), Float[Array, "T B 2"]),
    "box of matrices": (spaces.Box(-2.0, 2.0, (2, 3)), Float[Array, "T B 2 3"]),
}


@pytest.mark.parametrize("space", SPACES)
def test_distributions(space):
    space, action_type = SPACES[space]
    head = action_head(space)

    @shaped
    def sample(outputs: Float[Array, "T B _"], key) -> tuple[
            action_type, action_type, Float[Array, "T B"], Float[Array, "T B"]]:
        log_std = jnp.zeros(head.log_std_size) if head.log_std_size else None
        dist = head.distribution(outputs, log_std)
        action = dist.sample(key)
        return action, dist.mode(), dist.log_prob(action), dist.entropy()

    sample(jnp.zeros((T, B, head.size)), jax.random.key(0))


@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
@pytest.mark.parametrize("env", ["cartpole", "pendulum", "masked-bandit", "probe-multidiscrete"])
def test_networks(env, recurrent):
    env_spec = spec(*envs_jax.make(env))
    config = NetworkConfig(hidden=(8,), recurrent=recurrent, recurrent_size=4, previous=True)
    network = actor_critic(config, env_spec)
    inputs = example(env_spec, (T, B))

    @shaped
    def outputs(key) -> tuple[Float[Array, "T B"], Float[Array, "T B"], Float[Array, "T B"],
                              Float[Array, "T B"]]:
        params = network.init(key)
        carry = network.carry(B)
        policy, value = network.both(params, carry, inputs)
        return policy.entropy(), value, *network.values(params, carry, inputs, inputs)

    jax.eval_shape(outputs, jax.random.key(0))


class Flags(NamedTuple):
    terminated: Bool[Array, "N"]
    truncated: Bool[Array, "N"]
    first: Bool[Array, "N"]


@pytest.mark.parametrize("groups", [1, 3])
def test_vector_steps(groups, N=6):
    env, params = envs_jax.make("cartpole")
    vector = VectorEnv(env, N, group_size=N // groups)

    @shaped
    def step(key, action: Int[Array, "N"]) -> tuple[
            Float[Array, "N 4"], Float[Array, "N"], Flags, Int[Array, "N"]]:
        state, _ = vector.init(key, params)
        _, out = vector.step(key, state, action)
        flags = Flags(out.terminated, out.truncated, out.input.first)
        return out.input.obs, out.reward, flags, out.episode_length

    jax.eval_shape(step, jax.random.key(0), jnp.zeros(N, jnp.int32))
