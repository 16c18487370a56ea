"""Stand-ins for three trainers: their arguments, their files and what they restore, without a simulator."""

HEAD = """
import os, re, sys, time
from pathlib import Path
import torch

arguments = sys.argv[1:]


def option(name, default=None):
    return arguments[arguments.index(name) + 1] if name in arguments else default


def setting(prefix, name):
    return next(a.split("=", 1)[1] for a in arguments if re.match(rf"\\+*{re.escape(prefix)}{name}=", a))


def fresh(lr):
    return {"state": {}, "param_groups": [{"lr": lr, "params": [0]}]}
"""

RL_GAMES = (
    HEAD
    + """
out = Path("logs", "rl_games", "ant", setting("agent.params.config.", "full_experiment_name"))
state = {"epoch": 0, "optimizer": fresh(float(setting("agent.params.config.", "learning_rate")))}
if option("--checkpoint"):
    state = torch.load(option("--checkpoint"), weights_only=False)  # the optimizer with its rate
assert setting("agent.params.config.", "lr_schedule") == "constant"
for folder in ("nn", "summaries", "params"):
    (out / folder).mkdir(parents=True)
(out / "summaries" / "events").write_text(str(time.time()))
torch.save(state, out / "nn" / "ant.pth")
state["epoch"] = int(option("--max_iterations"))
torch.save(state, out / "nn" / f"last_ant_ep_{state['epoch']}_rew__{1.5 * state['epoch']}_.pth")
"""
)

RSL_RL = (
    HEAD
    + """
root = Path("logs", "rsl_rl", option("--experiment_name"))
state = {"iter": 0, "optimizer_state_dict": fresh(float(setting("agent.algorithm.", "learning_rate")))}
if "--resume" in arguments:
    runs = [folder for folder in root.iterdir() if re.match(option("--load_run"), folder.name)]
    files = [file for file in runs[-1].iterdir() if re.match(option("--checkpoint"), file.name)]
    state = torch.load(files[-1], weights_only=False)  # the optimizer with its rate
assert setting("agent.algorithm.", "schedule") == "fixed"
out = root / time.strftime("%Y-%m-%d_%H-%M-%S")
(out / "params").mkdir(parents=True)
torch.save(state, out / f"model_{state['iter']}.pt")
state["iter"] += int(option("--max_iterations"))
torch.save(state, out / f"model_{state['iter']}.pt")
print(f"                       Mean reward: {1.5 * state['iter']:.2f}")
"""
)

SAMPLE_FACTORY = (
    HEAD
    + """
out = Path(option("--train_dir"), option("--experiment"), "checkpoint_p0")
out.mkdir(parents=True, exist_ok=True)
lr = float(option("--learning_rate"))
state = {"env_steps": 0, "curr_lr": lr, "optimizer": fresh(lr)}
for last in sorted(out.glob("checkpoint_*.pth"))[-1:]:
    state = torch.load(last, weights_only=False)  # curr_lr and the optimizer with its rate
steps = int(option("--train_for_env_steps"))
for part in (state["env_steps"] + 1, steps):
    state["env_steps"] = part
    torch.save(state, out / f"checkpoint_{part:09d}_{part}.pth")
torch.save(state, out / "best_000000001_1_reward_1.000.pth")
(out.parent / "sf_log.txt").write_text(str(time.time()))
(out.parent / "config.json").write_text("{}")
print(f"[2024][1] Avg episode reward: [(0, '{1.5 * steps:.3f}')]", file=sys.stderr)
"""
)

TRAINERS = {
    "isaac-lab": ("scripts/reinforcement_learning/rl_games/train.py", RL_GAMES, "isaac_round.py"),
    "rsl-rl": ("scripts/reinforcement_learning/rsl_rl/train.py", RSL_RL, "rsl_round.py"),
    "sample-factory": ("sf_examples/mujoco/train_mujoco.py", SAMPLE_FACTORY, "sf_round.py"),
}
"""By recipe: where the trainer is, its text, and the name of the recipe's script."""
