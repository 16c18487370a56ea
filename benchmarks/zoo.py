"""A public comparison: every shipped plan and every control on small problems, in the manner of PBT-Zoo.

    python -m benchmarks.zoo --out runs/zoo [--seeds 10] [--problems toy-plain nqm ...] [--plans pbt no-evolution ...]

Prints the tables of docs/choosing.md. The runs, results and tests are those of `pbt compare`, one run after another in
this process; each finished run is a line of OUT/results.jsonl, and the same command resumes. The directories of the
runs are removed when all plans of a problem and seed have finished. The problems are in `benchmarks.zoo_problems`.
"""

import argparse
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pbt.compare.design import Design
from pbt.compare.output import check_packages
from pbt.compare.results import Comparison, PlanResult, compared
from pbt.compare.sentences import p_equation
from pbt.compare.statistics import Friedman, friedman
from pbt.compare.trials import TrialResult, measured, train
from pbt.domains import Choice
from pbt.errors import UsageError
from pbt.space import Space
from pbt.strategies.registry import PLANS
from pbt.text import number

FILE = Path(__file__).with_name("zoo_problems.py")
PROBLEMS = ("toy-plain", "toy-deceptive", "nqm", "digits", "cartpole", "shapes", "transformer")
MIX, ALONE = "pb2-mix", "pb2"
# `own` is `pbt` on every problem here, since their plans copy.
LEFT_OUT = ("own",)
COMPARED = tuple(sorted((name for name in PLANS if name not in LEFT_OUT), key=lambda name: name != "pbt"))


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """The comparison on all problems.

    Args:
        out: The directory of the results and of unfinished runs.
        problems: Names of functions in `file`, with `-` for `_`.
        plans: Names of plans; the others are compared with the first.
        seeds: Number of seeds, from 0 on.
        file: The file with the problems.
    """

    out: Path
    problems: Sequence[str] = PROBLEMS
    plans: Sequence[str] = COMPARED
    seeds: int = 10
    file: Path = FILE

    def design(self, problem: str, seeds: Sequence[int], plans: Sequence[str] | None = None) -> Design:
        """The comparison on one problem; of all plans by default."""
        asked = tuple(self.plans if plans is None else plans)
        return Design(
            task=f"{self.file}:{problem.replace('-', '_')}",
            asked=asked,
            seeds=tuple(seeds),
            out=self.out / "runs" / problem,
        )

    def trained(self, problem: str) -> list[str]:
        """The plans that are trained: on a space without choices `pb2-mix` is `pb2` to the bit."""
        space = Space(self.design(problem, [0]).experiment().space)
        mixed = any(isinstance(domain, Choice) for domain in space.values())
        return [plan for plan in self.plans if mixed or plan != MIX or ALONE not in self.plans]

    @property
    def results(self) -> Path:
        """The file with a line per finished run."""
        return self.out / "results.jsonl"

    def finished(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        """The lines by problem, plan and seed."""
        if not self.results.exists():
            return {}
        lines = [json.loads(line) for line in self.results.read_text(encoding="utf-8").splitlines()]
        return {(line["problem"], line["plan"], line["seed"]): line for line in lines}

    def train(self) -> Iterator[dict[str, Any]]:
        """Train the missing runs, and yield the line of each.

        Raises:
            UsageError: A plan does not fit a problem, or lines are those of a problem of another size.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        for problem in self.problems:
            plans = self.trained(problem)
            for seed in range(self.seeds):
                yield from self._train(problem, self.design(problem, [seed], plans))

    def _train(self, problem: str, design: Design) -> Iterator[dict[str, Any]]:
        """The runs of all plans on one seed; a source is trained again if only a run that follows it is missing."""
        experiment = design.experiment()
        size = {"population": experiment.population, "rounds": experiment.rounds}
        done = self.finished()
        trials = design.trials()
        missing = [trial for trial in trials if (problem, trial.plan, trial.seed) not in done]
        for line in (done[problem, trial.plan, trial.seed] for trial in trials if trial not in missing):
            if {name: line[name] for name in size} != size:
                raise UsageError(f"{self.results}: expected results of {problem} with {size}, got others; remove them")
        needed = {trial.source for trial in missing} | {trial.path for trial in missing}
        for trial in [trial for trial in trials if trial.path in needed]:
            started = time.process_time()
            trained = train(design, trial)
            if trained.error is not None:
                raise trained.error(trained.message)
            if trial in missing:
                line = {"problem": problem, **size, "cpu": time.process_time() - started, **asdict(measured(trial))}
                with self.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                yield line
        shutil.rmtree(design.out, ignore_errors=True)

    def comparison(self, problem: str) -> Comparison:
        """The evaluation of the finished runs of one problem."""
        seeds = range(self.seeds)
        design = self.design(problem, seeds)
        fields = TrialResult.__dataclass_fields__
        runs = [
            TrialResult(**{name: line[name] for name in fields})
            for (own, _, seed), line in self.finished().items()
            if own == problem and seed in seeds
        ]
        if MIX not in self.trained(problem):
            runs += [replace(run, plan=MIX) for run in runs if run.plan == ALONE]
        return compared(design, design.experiment(), runs)


def ranked(comparisons: Sequence[Comparison]) -> Friedman | None:
    """Friedman's test of the interquartile means: a problem is a block, in which the best plan has rank 1.

    None with fewer than three plans or two problems.
    """
    if len(comparisons) < 2 or len(comparisons[0].plans) < 3:
        return None
    return friedman([[(-1 if c.minimize else 1) * _iqm(result) for result in c.plans] for c in comparisons])


def _iqm(result: PlanResult) -> float:
    return float("-inf") if result.summary is None else result.summary.iqm


def table(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[str]:
    """A row per plan in the order of mean ranks: significant differences from the first plan in bold or italics."""
    test = ranked(comparisons)
    plans = [result.plan for result in comparisons[0].plans]
    ranks = [float("nan")] * len(plans) if test is None else test.ranks
    scores = [f"`{name}`{', loss' * c.minimize}" for name, c in zip(names, comparisons, strict=True)]
    head = ["plan", "mean rank", "better", "worse", *scores, "steps"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    texts = [_cells(c) for c in comparisons]
    by_plan = zip(*(c.plans for c in comparisons), strict=True)
    order = sorted(zip(ranks, plans, by_plan, strict=True), key=lambda row: row[0])
    for rank, plan, results in order:
        marks = [_mark(c, result) for c, result in zip(comparisons, results, strict=True)]
        cells = [f"{mark}{own[plan]}{mark}" for own, mark in zip(texts, marks, strict=True)]
        share = sum(r.mean("steps") / c.plans[0].mean("steps") for c, r in zip(comparisons, results, strict=True))
        wins = [str(marks.count(word)) if plan != plans[0] else "" for word in ("**", "*")]
        row = [f"`{plan}`", f"{rank:.1f}", *wins, *cells, f"{share / len(comparisons):.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _mark(found: Comparison, result: PlanResult) -> str:
    """`**` for significantly better than the first plan, `*` for worse."""
    if result.paired is None or not result.paired.significant:
        return ""
    return "**" if found.better(result.paired.iqm) else "*"


def _cells(found: Comparison) -> dict[str, str]:
    """By plan, the interquartile mean in four to six digits, the fewest that tell all apart; empty without a run."""
    means = {result.plan: result.summary.iqm for result in found.plans if result.summary is not None}
    texts = {result.plan: "" for result in found.plans}
    for digits in (4, 5, 6):
        texts |= {plan: number(mean, digits) for plan, mean in means.items()}
        if len(set(texts.values())) >= len(set(means.values())):
            break
    return texts


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each plan and problem")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--plans", nargs="+", choices=COMPARED, default=COMPARED, help="compared with the first")
    options = parser.parse_args()
    check_packages()
    logging.getLogger("pbt").setLevel(logging.ERROR)
    zoo = Zoo(out=options.out, problems=options.problems, plans=options.plans, seeds=options.seeds)
    for line in zoo.train():
        print(f"{line['problem']} {line['plan']} {line['seed']}: {line['values']}, {line['cpu']:.1f} s", flush=True)
    report(zoo)


def report(zoo: Zoo) -> None:
    """Print the table, the test of all plans, and the cost."""
    comparisons = [zoo.comparison(problem) for problem in zoo.problems]
    print("\n" + "\n".join(table(comparisons, zoo.problems)))
    test = ranked(comparisons)
    if test is not None:
        print(f"\nFriedman's test over problems: {p_equation(test.p)}; critical difference {test.critical:.1f} ranks")
    cost = sum(line["cpu"] for line in zoo.finished().values())
    print(f"{len(zoo.finished())} runs, {cost / 60:.0f} CPU minutes")


if __name__ == "__main__":
    main()
