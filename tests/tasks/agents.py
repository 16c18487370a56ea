"""Small reinforcement learning programs: what a user has, with a spy that reads the live model at every update."""

from functools import partial

import gymnasium
import numpy as np
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from pbt.tasks.sb3_model import optimizers

SEEN = []
"""(member, step, rates of all optimizers, clip range, discount of the buffer) at every update of this process."""


def tiny():
    """Arguments of every model; algorithms change the dicts that they are given."""
    return {"device": "cpu", "policy_kwargs": {"net_arch": [8]}}


class Waves(gymnasium.Env):
    """Episodes of eight steps; the reward is 1 for the sign of the observation, else -1. It draws nothing."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, discrete=True, length=8):
        box = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2) if discrete else box
        self.time, self.length = 0, length

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observed(), {}

    def step(self, action):
        reward = float(np.sign(np.sin(self.time)) * (2 * np.asarray(action).item() - 1))
        self.time += 1
        return self._observed(), reward, self.time >= self.length, False, {}

    def _observed(self):
        return np.array([np.sin(self.time), np.cos(self.time)], np.float32)


def watched(model, member):
    """Record what is in effect in every update."""
    train = model.train

    def spied(*args, **kwargs):
        train(*args, **kwargs)
        rates = [group["lr"] for one in optimizers(model).values() for group in one.param_groups]
        clip = model.clip_range(model._current_progress_remaining) if hasattr(model, "clip_range") else None
        buffer = getattr(model, "rollout_buffer", model)
        SEEN.append((member, model.num_timesteps, rates, clip, buffer.gamma))

    model.train = spied
    return model


def falling(start, left):
    return start * left


def ppo(hparams, ctx):
    """A linear schedule of the rate, and an environment for evaluation."""
    env = DummyVecEnv([Waves, Waves])
    rate = partial(falling, 1e-3)
    model = PPO("MlpPolicy", VecMonitor(env), n_steps=16, batch_size=16, n_epochs=2, learning_rate=rate, **tiny())
    return watched(model, ctx.member), Waves()


def normalized(hparams, ctx):
    """Normalized observations and rewards."""
    env, held_out = (VecNormalize(VecMonitor(DummyVecEnv([Waves]))) for _ in range(2))
    return PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=2, **tiny()), held_out


def dqn(hparams, ctx):
    model = DQN(
        "MlpPolicy", Waves(), learning_starts=20, train_freq=4, buffer_size=100, target_update_interval=16, **tiny()
    )
    return watched(model, ctx.member)


def sac(hparams, ctx):
    """Three optimizers, a learned entropy coefficient, random first actions."""
    model = SAC("MlpPolicy", Waves(discrete=False), learning_starts=20, train_freq=4, buffer_size=500, **tiny())
    return watched(model, ctx.member)


def endless(hparams, ctx):
    """No episode ends."""
    env = Waves(length=10**9)
    return PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, **tiny())


class Broken(Waves):
    """Raises, or returns rewards that are not numbers."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def step(self, action):
        if 0.2 < self.rate < 0.4:
            raise ValueError(f"rate {self.rate} breaks the user's environment")
        observation, reward, *others = super().step(action)
        return observation, float("nan") if self.rate > 0.9 else reward, *others


def failing(hparams, ctx):
    return PPO("MlpPolicy", Broken(hparams["lr"]), n_steps=16, batch_size=16, n_epochs=1, **tiny())


def wrong(hparams, ctx):
    return Waves()
