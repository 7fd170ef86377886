"""The jobs of a study, each in a folder of its own two levels below the study's (`pool.Job`).

base/world-NAME files/, start/    a world that no seed sees again: the records of a base
base/NAME       run/              what all starts begin with
worlds/NAME-N   files/, start/    the world of a seed, and the records of its start
seedN/NAME      run/              the policy's workdir
                greedy.jsonl, sampled.jsonl     its responses
                pairs.jsonl                     what it thinks of held-out pairs
askedN/NAME     asked-SCORE.jsonl               its responses where a score is asked for
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from amopo_jax.export import export
from amopo_jax.generate import Request, generate
from amopo_jax.lab.grading import mean_scores, pair_accuracy, read_lines, win_rate
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.write import write_world
from amopo_jax.models.sampling import Sampling
from amopo_jax.run_codec import from_dict
from amopo_jax.score import score as score_pairs
from amopo_jax.train import train
from amopo_jax.types import RunFailure
from amopo_jax.writers import read_metrics

GREEDY, SAMPLED = "greedy", "sampled"
MODES = {GREEDY: Sampling(), SAMPLED: Sampling(temperature=1.0)}
LOG = "log.txt"

_STEP_SECONDS = "throughput/seconds_per_step"
"""In the metrics, which a run that goes on keeps; of a first step, its compilation included."""

_START_SEED = 10_000
"""Added to a world's seed where the start's records are made: no two seeds of a study share any."""

_TOGETHER = 128
"""Responses that are made at a time."""


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
  make = partial(write_world, spec=WorldSpec(**fields))
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
    ask: of `_measure`.

  Returns:
    What `_measure` does, with "seconds" of all steps, "pairs", "tokens" scored, "sequences" (prompts with a response).

  Raises:
    RunFailure: a signal stopped the training, which would have been measured half done.
  """
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  files = root / world / "files"
  spec["data"] |= {"tokenizer": str(files / "tokenizer")}
  spec["data"]["train"] = {"world": _source(root / world / records / "train.jsonl")}
  spec["data"] |= {"heldout": {}, "heldout_fraction": 0.0}  # every policy is measured in the same contexts below
  if start:
    spec["model"] |= {"path": str(root / start / "run"), "arch": {}}
  trained = spec | {"data": spec["data"] | {"contexts": dict(contexts)}}
  with (folder / LOG).open("w") as log:
    outcome = train(from_dict(trained), str(folder / "run"), Console(file=log, width=120))
  if outcome.stopped_by:
    raise RunFailure(f"stopped by {outcome.stopped_by} at step {outcome.step}; the same command goes on")
  steps = [line for line in read_metrics(str(folder / "run")) if "loss" in line]
  return _measure(folder, spec, str(folder / "run"), world, rival, **ask) | {
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
  spec["data"] |= {"tokenizer": str(root / world / "files" / "tokenizer")}
  if not (folder / "model").exists():
    export(",".join(str(root / name / "run") for name in of), str(folder / "model"))
  return _measure(folder, spec, str(folder / "model"), world, start, **ask)


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
  made = next(root / policy / name for name in ("run", "model") if (root / policy / name).exists())
  spec["data"] |= {"tokenizer": str(root / world / "files" / "tokenizer"), "heldout": {}, "heldout_fraction": 0.0}
  spec["data"]["train"] = {"world": _source(root / world / "files" / "train.jsonl")}
  spec["model"] |= {"path": str(made), "arch": {}}
  heldout = root / world / "files" / "heldout.jsonl"
  names = {score: f"{score:g}" for score in scores}
  answer = lambda score: _answer(folder / f"asked-{names[score]}.jsonl", spec, heldout, SAMPLED, score=score, **ask)
  return {"asked": {name: mean_scores(answer(score)) for score, name in names.items()}}


def _measure(
  folder: Path,
  run: Mapping[str, Any],
  model: str,
  world: str,
  rival: str,
  **ask: int,
) -> dict[str, Any]:
  """Lets a policy answer the held-out questions in all contexts of a run, and grades.

  Args:
    folder: of the job.
    run: says contexts and tokenizer.
    model: the policy.
    world: whose questions.
    rival: whose responses it is to win against; "": none.
    ask: of `_answer`.

  Returns:
    "scores": mode -> context -> dimension -> mean; "wins": mode -> context -> share of responses whose sum of grades
    beats that of the rival's to the same question, ties for half; "tokens_per_response" and "ended", of the sampled
    ones; "accuracy": context -> of `pair_accuracy`.
  """
  jax.clear_caches()  # a worker does many jobs
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  spec["model"] |= {"path": model, "arch": {}}
  heldout = root / world / "files" / "heldout.jsonl"
  lines = {mode: _answer(folder / f"{mode}.jsonl", spec, heldout, mode, **ask) for mode in MODES}
  found: dict[str, Any] = {"scores": {mode: mean_scores(of) for mode, of in lines.items()}}
  against = lambda mode: win_rate(lines[mode], read_lines(root / rival / f"{mode}.jsonl"))
  found["wins"] = {mode: against(mode) for mode in MODES} if rival else {}
  sampled = lines[SAMPLED]
  found["tokens_per_response"] = sum(line["num_tokens"] for line in sampled) / len(sampled)
  found["ended"] = sum(line["has_ended"] for line in sampled) / len(sampled)
  return found | {"accuracy": _accuracy(folder, spec, heldout)}


def _answer(
  out: Path,
  spec: Mapping[str, Any],
  heldout: Path,
  mode: str,
  *,
  max_new: int,
  draws: int,
  seed: int,
  score: float | None = None,
) -> list[dict[str, Any]]:
  """The responses of a policy, out of its file where that is there.

  Args:
    out: the file.
    spec: the run, with the policy as its model.
    heldout: the questions.
    mode: one of `MODES`.
    max_new: tokens of a response.
    draws: responses to each question in each context where they are sampled.
    seed: of the draws.
    score: to ask for; None for the highest.
  """
  if not out.exists():
    wanted = Request(str(heldout), max_new=max_new, sampling=MODES[mode], score=score, batch_size=_TOGETHER, seed=seed)
    generate(from_dict(dict(spec)), wanted._replace(num_samples=1 if mode == GREEDY else draws), str(out))
  return read_lines(out)


def _accuracy(folder: Path, spec: Mapping[str, Any], heldout: Path) -> dict[str, float | None]:
  """Of the policy at a run's `model.path`, on held-out pairs in all of its contexts."""
  data = {**spec["data"], "train": {"world": _source(heldout)}, "heldout": {}, "heldout_fraction": 0.0}
  scored = folder / "pairs.jsonl"
  if not scored.exists():
    score_pairs(from_dict({**spec, "data": {**data, "rule": "derived"}}), str(scored))
  return pair_accuracy(scored, heldout, {name: of["dimension"] for name, of in data["contexts"].items()})


def _source(path: Path) -> dict[str, Any]:
  return {"path": str(path), "format": "native", "weight": 1.0}
