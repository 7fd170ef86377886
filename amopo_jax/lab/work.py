"""The jobs of a study, each in a folder of its own two levels below the study's (`pool.Job`).

base/world-NAME-N files/, start/    a world that nobody else sees: the records of a seed's base
base/NAME-N     run/              what its starts begin with
worlds/NAME-N   files/, start/    the world of a seed, and the records of its start
seedN/NAME      run/, model/, path.txt          the policy: a workdir, a soup, or where the given model is
                greedy.jsonl, sampled.jsonl     its responses
                pairs.jsonl                     what it thinks of held-out pairs
askedN/NAME     asked-SCORE.jsonl               its responses where a score is asked for
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from amopo_jax import processes
from amopo_jax.export import export
from amopo_jax.lab.grading import mean_scores
from amopo_jax.lab.measure import SAMPLED, answer_all, from_graded, graded, measure, source
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.write import write_world
from amopo_jax.run_codec import from_dict
from amopo_jax.stopping import StoppedError
from amopo_jax.train import train
from amopo_jax.writers import read_metrics

LOG, PATH = "log.txt", "path.txt"

_STEP_SECONDS = "throughput/seconds_per_step"
"""In the metrics, which a run that goes on keeps; of a first step, its compilation included."""

_START_SEED = 10_000
"""Added to a world's seed where the start's records are made: no two seeds of a study share any."""


def make_world(
  folder: Path, *, seed: int, start: int, train: int, heldout: int, spec: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes a world, and beside it another seed of it for the start.

  Args:
    folder: of the job.
    seed: names the world.
    start, train, heldout: numbers of records.
    spec: fields of a `WorldSpec`.

  Returns:
    "chance", "optimum" and "demonstrated": mean true scores on the held-out questions of words by chance, of the best
    responses, and of the responses that the start imitates.
  """
  fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
  make = partial(_by_first, write_world, spec=WorldSpec(**fields))
  told = make(folder / "files", seed=seed, num_train=train, num_heldout=heldout)["heldout"]
  make(folder / "start", seed=_START_SEED + seed, num_train=start, num_heldout=1)
  shown = {name: (of["mean_chosen"] + of["mean_rejected"]) / 2 for name, of in told["dimensions"].items()}
  return {key: told[key] for key in ("chance", "optimum")} | {"demonstrated": shown}


def make_policy(
  folder: Path,
  *,
  run: Mapping[str, Any],
  contexts: Mapping[str, Any],
  world: str,
  records: str,
  start: str,
  rival: str,
  ask: Mapping[str, Any],
) -> dict[str, Any]:
  """Trains a policy and measures it.

  Args:
    folder: of the job.
    run: a `RunSpec` as `to_dict` gives it; the world's files and the start take their places in it.
    contexts: that it is trained in; it answers in those of `run`.
    world: name of its job.
    records: folder of the world with what it is trained on.
    start: name of the job whose policy it begins with; "": the run's own random weights.
    rival: whose responses it is to win against; "": none.
    ask: of `measure`.

  Returns:
    What `measure` does, with "seconds" of all steps, "pairs", "tokens" scored, "sequences" (prompts with a response).

  Raises:
    StoppedError: a signal stopped the training, which would have been measured half done.
  """
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  spec["data"] |= _tokenizer(root / world)
  spec["data"]["train"] = {"world": source(root / world / records / "train.jsonl")}
  spec["data"] |= {"heldout": {}, "heldout_fraction": 0.0}  # every policy is measured in the same contexts below
  if start:
    spec["model"] |= {"path": _policy_in(root / start), "arch": {}}
  trained = spec | {"data": spec["data"] | {"contexts": dict(contexts)}}
  with open(folder / LOG if jax.process_index() == 0 else os.devnull, "w") as log:
    outcome = train(from_dict(trained), str(folder / "run"), Console(file=log, width=120))
  if outcome.stopped_by:
    raise StoppedError(f"stopped by {outcome.stopped_by} at step {outcome.step}; the same command goes on")
  processes.meet()
  steps = [line for line in read_metrics(str(folder / "run")) if "loss" in line]
  return measure(folder, spec, str(folder / "run"), world, rival, **ask) | {
    "seconds": sum(line[_STEP_SECONDS] for line in steps),
    "tokens": sum(line["num_tokens"] for line in steps),
    "pairs": sum(line["num_pairs"] for line in steps),
    "sequences": sum(line["num_responses"] for line in steps),
  }


def make_soup(
  folder: Path, *, run: Mapping[str, Any], world: str, start: str, of: Sequence[str], ask: Mapping[str, Any]
) -> dict[str, Any]:
  """Averages the parameters of other jobs' policies and measures the result.

  Args:
    folder, run, world, start, ask: as of `make_policy`.
    of: names of those jobs.
  """
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  spec["data"] |= _tokenizer(root / world)
  if not processes.from_first((folder / "model").exists()):
    export(",".join(str(root / name / "run") for name in of), str(folder / "model"))
  return measure(folder, spec, str(folder / "model"), world, start, **ask)


def make_answers(
  folder: Path, *, run: Mapping[str, Any], policy: str, world: str, scores: Sequence[float], ask: Mapping[str, Any]
) -> dict[str, Any]:
  """Asks another job's policy for scores other than the highest.

  Args:
    folder, run, world, ask: as of `make_policy`.
    policy: name of that job.
    scores: to ask for, one after the other.

  Returns:
    "asked": score asked for -> context -> dimension -> mean, sampled.
  """
  jax.clear_caches()
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  spec["data"] |= {**_tokenizer(root / world), "heldout": {}, "heldout_fraction": 0.0}
  spec["data"]["train"] = {"world": source(root / world / "files" / "train.jsonl")}
  spec["model"] |= {"path": _policy_in(root / policy), "arch": {}}
  heldout = root / world / "files" / "heldout.jsonl"
  how = dict(ask)
  judge, files = how.pop("judge", ""), {f"{score:g}": folder / f"asked-{score:g}.jsonl" for score in scores}
  for score, file in zip(scores, files.values(), strict=True):
    answer_all(file, spec, heldout, SAMPLED, score=score, **how)
  return {"asked": from_graded(lambda: {name: mean_scores(graded(file, judge)) for name, file in files.items()})}


def _tokenizer(world: Path) -> dict[str, str]:
  """The key that names a world's tokenizer; records that were given have that of the model."""
  return {"tokenizer": str(world / "files" / "tokenizer")} if (world / "files" / "tokenizer").exists() else {}


def _policy_in(folder: Path) -> str:
  """Of a job."""
  if (folder / PATH).exists():
    return (folder / PATH).read_text()
  return str(next(folder / name for name in ("run", "model") if (folder / name).exists()))


def _by_first(write: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
  """Has the first process write files; of all of them, what it returned."""
  found = write(*arguments, **options) if jax.process_index() == 0 else None
  return processes.from_first(found)
