"""Tasks that train with Stable-Baselines3: the user's algorithm and environment, one `learn` per round."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pbt.errors import MissingExtraError, TaskError
from pbt.executors.base import State
from pbt.executors.context import trial_round
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.bind import AttributeBinding, Binding, OptimizerBinding
from pbt.pytorch.live import Live
from pbt.space import HParams
from pbt.tasks.trainers import (
    Build,
    bind_attributes,
    bind_live,
    built,
    check_device,
    check_fields,
    generators,
    metrics_of,
    report_curves,
    restore_generators,
    sow,
    tried,
    with_threads,
)

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback, CallbackList
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.type_aliases import TrainFrequencyUnit
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, sync_envs_normalization
except ImportError as error:
    raise MissingExtraError("pbt.tasks.sb3", "sb3") from error

from pbt.tasks.sb3_model import AlgorithmBinding, algorithm, capture, optimizers, restore, use_run_progress

__all__ = ["SB3Task", "algorithm"]

_SEEDS = 2**31
"""Seeds of environments are smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3Task:
    """Train members with an algorithm of Stable-Baselines3.

    A round is one call of `learn` over the steps of the round, which are steps of the environments. The state contains
    the parameters of the policy and its optimizers, the counters, the statistics of a `VecNormalize`, the generators
    and, on request, the replay buffer. Environments are not part of it: they are reset at the start of each round.

    Args:
        build: `(hparams, ctx) -> model` or `(model, eval_env)`: makes the algorithm with its environment, and an
            environment for evaluation. Called at the start of every round.
        score: The metric that is the score: `"rollout/ep_rew_mean"`, the mean return of the last training episodes, or
            `"eval/mean_reward"`, the mean return of evaluation episodes (with an `eval_env`).
        bind: The binding of each hyperparameter: `optimizer("lr")`, `algorithm("clip_range")`, `algorithm("gamma")`,
            `attribute("policy.temperature")`, or `argument()` if `build` reads the value. The parts are `model`,
            `policy` and `optimizer` (`actor_optimizer`, `critic_optimizer`, ... if there are several).
        total_steps: The `total_timesteps` of the whole run, for schedules that depend on the progress of training.
        replay_buffer: Keep the replay buffer of an off-policy algorithm across rounds and copies.
        eval_episodes: Episodes of an evaluation.
        callbacks: Returns the callbacks of a round.
        quiet: Print no logs, and write none for TensorBoard.
    """

    build: Build
    score: str
    bind: Mapping[str, Binding]
    total_steps: int | None = None
    replay_buffer: bool = True
    eval_episodes: int = 10
    callbacks: Callable[[], Sequence[Any]] = tuple
    quiet: bool = True

    def __post_init__(self) -> None:
        check_fields(self.build, self.bind, (AlgorithmBinding,), "a model such as stable_baselines3.PPO(...)")
        for field, value in (("eval_episodes", self.eval_episodes), ("total_steps", self.total_steps)):
            if value is not None and value < 1:
                raise TaskError(f"expected {field} to be at least 1, got {value}")

    @property
    def bindings(self) -> dict[str, Binding]:
        """The table with `optimizer("lr")` as the algorithm's schedule, which sets the rate before each update."""
        return {
            name: AlgorithmBinding("learning_rate") if binding == OptimizerBinding("lr") else binding
            for name, binding in self.bind.items()
        }

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless every value is bound and takes effect; calls `build`, and trains nothing."""

        def attempt(ctx: Context) -> None:
            with _LearnRound(self, hparams, None, ctx) as round_:
                round_.bind()

        tried(hparams, self.bind, attempt)

    def restored(self, hparams: HParams, state: State) -> Any:
        """The algorithm of a state, such as a `PPO`, as `run.model()` returns it; its environments stay open."""
        with trial_round(hparams, "the model cannot be built") as ctx:
            model, _ = _taken_apart(built(self.build, hparams, ctx))
            model.set_parameters(state["parameters"])
        return model

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (the device is in the context)
        """The function that trains rounds in this worker."""

        def train(hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
            with _LearnRound(self, hparams, state, ctx) as round_:
                return round_.train(steps)

        return with_threads(threads, train)


class _LearnRound:
    """One round of one member; a context manager that closes the environments."""

    def __init__(self, task: SB3Task, hparams: HParams, state: State, ctx: Context) -> None:
        self._task, self._hparams, self._start, self._ctx = task, hparams, state, ctx
        self._model, self._eval_env = _taken_apart(built(task.build, hparams, ctx))
        model = self._model
        self._check_bindings()
        check_device(model.device, ctx, "build the model with device=ctx.device")
        if task.quiet:
            model.verbose, model.tensorboard_log = 0, None
        use_run_progress(model, task.total_steps)
        self._parts = {"model": model, "policy": model.policy, **optimizers(model)}
        self._live = Live(parts=self._parts, marked=True)

    def _check_bindings(self) -> None:
        """Refuse to set an argument of the algorithm as a mere attribute: buffers have copies of some of them."""
        known = inspect.signature(type(self._model).__init__).parameters
        for binding in self._task.bind.values():
            path = binding.path.split(".") if isinstance(binding, AttributeBinding) else []
            if len(path) == 2 and path[0] == "model" and path[1] in known:
                raise TaskError(
                    f"attribute({'.'.join(path)!r}): expected an attribute that is no argument of "
                    f"{type(self._model).__name__}; bind algorithm({path[1]!r}), which also sets the copies in buffers"
                )

    def __enter__(self) -> "_LearnRound":
        return self

    def __exit__(self, *_: object) -> None:
        for env in (self._model.env, self._eval_env):
            if env is not None:
                env.close()

    def bind(self) -> None:
        """Set every value, and read it back."""
        bind_attributes({"model": self._model, "policy": self._model.policy}, self._hparams, self._task.bindings)
        bind_live(self._live, self._hparams, self._task.bindings, self._ctx)

    def train(self, steps: int) -> tuple[State, Metrics]:
        """Train and evaluate; returns the state as it was after the last step."""
        model, ctx = self._model, self._ctx
        target = ctx.first_step + steps
        _check_steps(model, steps)
        self._seed()
        self.bind()
        if model.num_timesteps >= target:
            raise TaskError(
                f"expected the round to end at step {target}, but the episodes of earlier rounds reached step "
                f"{model.num_timesteps}; make the plan's interval longer than an episode"
            )
        episodes = _Episodes(ctx)
        callbacks = CallbackList([*self._task.callbacks(), episodes])
        model.learn(target - model.num_timesteps, callback=callbacks, reset_num_timesteps=False)
        if model.num_timesteps < target:
            raise TaskError(
                f"expected the model to end the round at step {target}, but it stopped at step {model.num_timesteps}; "
                "remove callbacks that stop training early"
            )
        state = {**capture(model, self._task.replay_buffer, ctx.scratch), "generators": generators()}
        return state, self._metrics(episodes.returns)

    def _seed(self) -> None:
        """Load the state, and seed everything that draws; a copy gets the seeds that its donor would have had."""
        model, ctx = self._model, self._ctx
        lineage = ctx.member if ctx.founder is None else ctx.founder
        seed = ctx.key("environment", lineage, ctx.first_step) % _SEEDS
        model.action_space.seed(seed)
        model.env.seed(seed)
        if self._start is None:
            sow(ctx)
        else:
            restore(model, self._start)
            restore_generators(self._start["generators"])

    def _metrics(self, returns: list[float]) -> dict[str, Any]:
        """The model's own means over its last episodes, those of the evaluation, and the returns as a series."""
        model, found, series = self._model, {}, returns
        buffer = model.ep_info_buffer
        if buffer:
            found["rollout/ep_rew_mean"] = sum(episode["r"] for episode in buffer) / len(buffer)
            found["rollout/ep_len_mean"] = sum(episode["l"] for episode in buffer) / len(buffer)
        if self._eval_env is not None:
            series, lengths = self._evaluated(self._eval_env)
            found["eval/mean_reward"] = sum(series) / len(series)
            found["eval/mean_ep_length"] = sum(lengths) / len(lengths)
        hint = (
            "; no episode ended in training (make the plan's interval longer, or return (model, eval_env) from build)"
        )
        metrics = metrics_of(found, self._task.score, "" if found else hint)
        return {**metrics, "series": [float(value) for value in series[-100:]]}

    def _evaluated(self, env: Any) -> Any:
        """The returns and lengths of evaluation episodes, with the same seed for all members and rounds."""
        venv = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
        if isinstance(venv, VecNormalize):
            sync_envs_normalization(self._model.env, venv)
            venv.training = venv.norm_reward = False
        seed = self._ctx.key("evaluate") % _SEEDS
        with seeded(seed, self._ctx.device):
            venv.seed(seed)
            evaluated: Any = evaluate_policy(
                self._model, venv, self._task.eval_episodes, return_episode_rewards=True, warn=False
            )
        return evaluated


class _Episodes(BaseCallback):
    """Collects the returns of the episodes that end in a round, and reports their mean as a curve."""

    def __init__(self, ctx: Context) -> None:
        BaseCallback.__init__(self)
        self.ctx = ctx
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns.append(float(info["episode"]["r"]))
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.ep_info_buffer
        if buffer:
            mean = sum(episode["r"] for episode in buffer) / len(buffer)
            report_curves(self.ctx, self.num_timesteps, {"rollout/ep_rew_mean": mean})


def _taken_apart(returned: Any) -> tuple[Any, Any]:
    given = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    if not 1 <= len(given) <= 2 or not isinstance(given[0], BaseAlgorithm) or given[0].env is None:
        found = ", ".join(type(item).__name__ for item in given)
        raise TaskError(
            f"expected build to return a model of stable_baselines3 with its environment, or (model, eval_env), got "
            f"({found})"
        )
    return given[0], given[1] if len(given) == 2 else None


def _check_steps(model: Any, steps: int) -> None:
    """Raise TaskError unless a round is a whole number of rollouts: the algorithm would train longer than logged."""
    if isinstance(model, OnPolicyAlgorithm):
        rollout, how = model.n_steps * model.n_envs, "n_steps times the environments"
    elif getattr(getattr(model, "train_freq", None), "unit", None) == TrainFrequencyUnit.STEP:
        rollout, how = model.train_freq.frequency * model.n_envs, "train_freq times the environments"
    else:
        return
    if steps % rollout:
        raise TaskError(
            f"expected a round of whole rollouts of {rollout} environment steps ({how}), got {steps} steps; set the "
            f"plan's interval to a multiple of {rollout}"
        )
