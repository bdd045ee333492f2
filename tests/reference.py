"""Slow oracles in NumPy float64, written from the papers and not from the code under test.

[T, B] unless said.
"""

import numpy as np


def _episode_end(ended, t, b):
    """The last step of the episode that step t belongs to, or of the segment."""
    while not ended[t, b] and t < len(ended) - 1:
        t += 1
    return t


def gae(reward, value, next_value, terminated, truncated, gamma, lam):
    """Schulman et al. 2016, eq. 16.

    The sum over l of (gamma lam)^l delta_{t+l}, to the end of the episode.
    """
    advantage = np.zeros(reward.shape)
    ended = terminated | truncated
    for t, b in np.ndindex(reward.shape):
        for k in range(t, _episode_end(ended, t, b) + 1):
            follows = 0.0 if terminated[k, b] else next_value[k, b]
            delta = reward[k, b] + gamma * follows - value[k, b]
            advantage[t, b] += (gamma * lam) ** (k - t) * delta
    return advantage


def n_step_return(reward, next_value, terminated, truncated, gamma, n, t, b):
    """Sutton and Barto 2018, eq. 7.1, cut at the end of the episode or segment. A scalar."""
    last = min(t + n - 1, _episode_end(terminated | truncated, t, b))
    total = sum(gamma ** (k - t) * reward[k, b] for k in range(t, last + 1))
    return total + (0.0 if terminated[last, b] else gamma ** (last + 1 - t) * next_value[last, b])


def n_step_returns(reward, next_value, terminated, truncated, gamma, n):
    target = np.zeros(reward.shape)
    for t, b in np.ndindex(reward.shape):
        target[t, b] = n_step_return(reward, next_value, terminated, truncated, gamma, n, t, b)
    return target


def lambda_returns(reward, next_value, terminated, truncated, gamma, lam):
    """Sutton and Barto 2018, eq. 12.3.

    Forward view, (1 - lam) sum of lam^(n-1) G^(n), the last G with the rest.
    """
    target = np.zeros(reward.shape)
    ended = terminated | truncated
    for t, b in np.ndindex(reward.shape):
        longest = _episode_end(ended, t, b) - t + 1
        g = [
            n_step_return(reward, next_value, terminated, truncated, gamma, n, t, b)
            for n in range(1, longest + 1)
        ]
        target[t, b] = (1 - lam) * sum(lam ** (n - 1) * g[n - 1] for n in range(1, longest))
        target[t, b] += lam ** (longest - 1) * g[-1]
    return target


def ppo_clip(ratio, advantage, epsilon):
    """Schulman et al. 2017, figure 1, case by case, negated. Scalars."""
    if advantage >= 0:
        return -advantage * min(ratio, 1 + epsilon)
    return -advantage * max(ratio, 1 - epsilon)


def clipped_value(value, old, target, epsilon):
    """Scalars."""
    near = min(max(value, old - epsilon), old + epsilon)
    return max((value - target) ** 2, (near - target) ** 2) / 2


def welford(samples):
    """Welford 1962, one sample at a time, [n, ...] -> (mean, population variance)."""
    mean = np.zeros(samples.shape[1:])
    m2 = np.zeros(samples.shape[1:])
    for k, x in enumerate(samples.astype(np.float64), start=1):
        delta = x - mean
        mean = mean + delta / k
        m2 = m2 + delta * (x - mean)
    return mean, m2 / len(samples)


def discounted_sums(reward, done, gamma):
    """OpenAI Baselines, VecNormalize.step_wait: ret = ret * gamma + rews; (statistics of ret).

    Ret[news] = 0.
    """
    ret = np.zeros(reward.shape[1:])
    seen = []
    for r, news in zip(reward, done):
        ret = ret * gamma + r
        seen.append(ret.copy())
        ret[news] = 0.0
    return np.stack(seen), ret


def clip_gradient(grads, limit):
    """Pascanu et al. 2013, algorithm 1, over a list of arrays."""
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    return [g * limit / norm if norm > limit else g for g in grads]


def adam(params, gradients, learning_rate, limit, eps, b1=0.9, b2=0.999):
    """Kingma and Ba 2015, algorithm 1, after the clip. params: list of arrays; gradients.

    List of such lists.
    """
    m = [0 * p for p in params]
    v = [0 * p for p in params]
    for t, grads in enumerate(gradients, start=1):
        for i, g in enumerate(clip_gradient(grads, limit)):
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g**2
            params[i] = params[i] - learning_rate * (m[i] / (1 - b1**t)) / (
                np.sqrt(v[i] / (1 - b2**t)) + eps
            )
    return params


def rmsprop(params, gradients, learning_rate, limit, eps, decay, start):
    """TensorFlow 1's RMSPropOptimizer after the clip: eps inside the root."""
    ms = [0 * p + start for p in params]
    for grads in gradients:
        for i, g in enumerate(clip_gradient(grads, limit)):
            ms[i] = decay * ms[i] + (1 - decay) * g**2
            params[i] = params[i] - learning_rate * g / np.sqrt(ms[i] + eps)
    return params


def categorical(logits, legal):
    """(probabilities, entropy in nats) of the legal choices alone; a vector of logits."""
    weights = np.exp(np.where(legal, logits - logits[legal].max(), -np.inf))
    p = weights / weights.sum()
    return p, -sum(q * np.log(q) for q in p if q > 0)


def huber(x, delta):
    """Huber 1964, case by case. Scalars."""
    return x**2 / 2 if abs(x) <= delta else delta * (abs(x) - delta / 2)


def n_step_window(reward, terminated, truncated, gamma):
    """(sum of rewards, discount of the bootstrap, last step) of the first step of a window.

    Vectors [n].
    """
    total = 0.0
    weight = 1.0
    for k, r in enumerate(reward):
        total = total + weight * r
        weight = weight * gamma
        if terminated[k]:
            return total, 0.0, k
        if truncated[k]:
            return total, weight, k
    return total, weight, len(reward) - 1


def categorical_projection(support, probabilities, atoms):
    """Bellemare et al. 2017, algorithm 1, vectors.

    Mass that hits the support (l = u) goes there as a whole.
    """
    m = np.zeros(len(support))
    spacing = (support[-1] - support[0]) / (len(support) - 1)
    for p, atom in zip(probabilities, atoms):
        b = (min(max(atom, support[0]), support[-1]) - support[0]) / spacing
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            m[lower] += p
        else:
            m[lower] += p * (upper - b)
            m[upper] += p * (b - lower)
    return m


def quantile_huber(theta, tau, target, kappa):
    """Dabney et al. 2018 (QR-DQN), eqs. 8 to 10, divided by kappa; eq. 8 for kappa = 0. Vectors."""
    total = 0.0
    for quantile, fraction in zip(theta, tau):
        for sample in target:
            u = sample - quantile
            loss = huber(u, kappa) / kappa if kappa > 0 else abs(u)
            total += abs(fraction - (1.0 if u < 0 else 0.0)) * loss / len(target)
    return total


def importance_weights(probability, size, beta):
    """Schaul et al. 2016, algorithm 1, line 10.

    (N P(j))^-beta / max_i w_i, the maximum over the batch.
    """
    weights = [(size * p) ** -beta for p in probability]
    return [w / max(weights) for w in weights]


def rescale(x, epsilon):
    """Pohlen et al. 2018: h. Scalars."""
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + epsilon * x


def inverse_rescale(y, epsilon):
    """By bisection of h, which increases. Scalars."""
    low, high = -1e9, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rescale(middle, epsilon) < y else (low, middle)
    return (low + high) / 2


def tanh_normal_log_prob(u, mean, log_std, low, high, step=1e-5):
    """Change of variables, the slope of the action by u taken numerically. Vectors."""
    def action(u):
        return low + (high - low) * (np.tanh(u) + 1) / 2

    density = np.exp(-(((u - mean) / np.exp(log_std)) ** 2) / 2) / (
        np.sqrt(2 * np.pi) * np.exp(log_std)
    )
    slope = (action(u + step) - action(u - step)) / (2 * step)
    return np.sum(np.log(density / slope))


def noisy_dense(x, mu_w, sigma_w, mu_b, sigma_b, e_in, e_out):
    """Fortunato et al. 2018, eqs. 9 to 11, entry by entry. x [p] -> [q]."""
    def f(x):
        return np.sign(x) * np.sqrt(abs(x))

    y = np.zeros(len(e_out))
    for j in range(len(e_out)):
        for i in range(len(e_in)):
            y[j] += (mu_w[i, j] + sigma_w[i, j] * f(e_in[i]) * f(e_out[j])) * x[i]
        y[j] += mu_b[j] + sigma_b[j] * f(e_out[j])
    return y
