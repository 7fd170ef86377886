"""The jobs of a study, each in a folder of its own two levels below the study's (`pool.Job`).

worlds/NAME     files/            the world
seedN/NAME      run/              the policy's workdir
                greedy.jsonl, sampled.jsonl     its responses
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from amopo_jax.export import export
from amopo_jax.generate import Request, generate
from amopo_jax.lab.grading import mean_scores, read_lines, win_rate
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.write import write_world
from amopo_jax.models.sampling import Sampling
from amopo_jax.run_codec import from_dict
from amopo_jax.train import train
from amopo_jax.types import RunFailure
from amopo_jax.writers import read_metrics

MODES = {"greedy": Sampling(), "sampled": Sampling(temperature=1.0)}
LOG = "log.txt"


def make_world(folder: Path, *, seed: int, train: int, heldout: int, spec: Mapping[str, Any]) -> dict[str, Any]:
  """Writes a world.

  Args:
    folder: of the job.
    seed, train, heldout: of `write_world`.
    spec: fields of a `WorldSpec`.

  Returns:
    "chance" and "optimum": mean true scores on the held-out questions.
  """
  fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
  told = write_world(folder / "files", seed=seed, num_train=train, num_heldout=heldout, spec=WorldSpec(**fields))
  return {key: told["heldout"][key] for key in ("chance", "optimum")}


def make_policy(
  folder: Path, *, run: Mapping[str, Any], world: str, start: str, ask: Mapping[str, Any]
) -> dict[str, Any]:
  """Trains a policy and measures it.

  Args:
    folder: of the job.
    run: a `RunSpec` as `to_dict` gives it; the world's files and the start take their places in it.
    world: name of its job.
    start: name of the job whose policy it begins with; "": the run's own random weights.
    ask: of `_measure`.

  Returns:
    What `_measure` does, with "seconds" of training, "tokens" scored, "sequences" (prompts with a response) and
    "accuracy" of held-out pairs by context.

  Raises:
    RunFailure: a signal stopped the training, which would have been measured half done.
  """
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  files = root / world / "files"
  spec["data"] |= {"tokenizer": str(files / "tokenizer")}
  spec["data"]["train"] = {"world": _source(files / "train.jsonl")}
  spec["data"]["heldout"] = {"world": _source(files / "heldout.jsonl")}
  if start:
    spec["model"] |= {"path": str(root / start / "run"), "arch": {}}
  with (folder / LOG).open("w") as log:
    began = time.monotonic()
    outcome = train(from_dict(spec), str(folder / "run"), Console(file=log, width=120))
    spent = time.monotonic() - began
  if outcome.stopped_by:
    raise RunFailure(f"stopped by {outcome.stopped_by} at step {outcome.step}; the same command goes on")
  lines = read_metrics(str(folder / "run"))
  steps, evaluations = ([line for line in lines if key in line] for key in ("loss", "eval_loss"))
  pairs = sum(line["num_pairs"] for line in steps)
  return _measure(folder, spec, str(folder / "run"), world, start, **ask) | {
    "seconds": spent,
    "tokens": sum(line["num_tokens"] for line in steps),
    "sequences": pairs * 2 * len(spec["data"]["contexts"]),
    "accuracy": {
      key.rpartition("/")[2]: value
      for key, value in evaluations[-1].items()
      if key.startswith("eval_rewards/accuracies/")
    },
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


def _measure(
  folder: Path,
  run: Mapping[str, Any],
  model: str,
  world: str,
  start: str,
  *,
  contexts: Sequence[str],
  scores: Sequence[float],
  max_new: int,
) -> dict[str, Any]:
  """Lets a policy answer the held-out questions, and grades.

  Args:
    folder: of the job.
    run: says contexts and tokenizer.
    model: the policy.
    world: whose questions.
    start: whose responses it is to win against; "": none.
    contexts: to answer in, of all those in `run`.
    scores: to ask for, one after the other, beside the highest.
    max_new: tokens of a response.

  Returns:
    "scores": mode -> context -> dimension -> mean; "wins": context -> share of questions on which the sum of greedy
    grades beats the start's in the same context, ties for half; "tokens_per_response" and "ended", greedy; "asked":
    score asked for -> context -> dimension -> mean.
  """
  jax.clear_caches()  # a worker does many jobs
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  spec["model"] |= {"path": model, "arch": {}}
  found: dict[str, Any] = {"scores": {}, "asked": {}}

  def answer(name: str, sampling: Sampling, score: float | None = None) -> Path:
    out = folder / f"{name}.jsonl"
    if not out.exists():
      data = str(root / world / "files" / "heldout.jsonl")
      wanted = Request(data, contexts=tuple(contexts), max_new=max_new, sampling=sampling, score=score, batch_size=128)
      generate(from_dict(spec), wanted, str(out))
    return out

  for mode, sampling in MODES.items():
    found["scores"][mode] = mean_scores(read_lines(answer(mode, sampling)))
  for score in scores:
    found["asked"][f"{score:g}"] = mean_scores(read_lines(answer(f"asked-{score:g}", Sampling(), score)))
  greedy = read_lines(folder / "greedy.jsonl")
  found["wins"] = win_rate(greedy, read_lines(root / start / "greedy.jsonl")) if start else {}
  found["tokens_per_response"] = sum(line["num_tokens"] for line in greedy) / len(greedy)
  found["ended"] = sum(line["has_ended"] for line in greedy) / len(greedy)
  return found


def _source(path: Path) -> dict[str, Any]:
  return {"path": str(path), "format": "native", "weight": 1.0}
