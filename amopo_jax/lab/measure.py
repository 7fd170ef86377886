"""What a policy is worth: its answers to the held-out questions, and their scores."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from amopo_jax import processes
from amopo_jax.generate import Request, generate
from amopo_jax.lab.grading import mean_scores, pair_accuracy, read_lines, win_rate
from amopo_jax.lab.judge import judge_lines, read_judged
from amopo_jax.models.sampling import Sampling
from amopo_jax.run_codec import from_dict
from amopo_jax.score import score as score_pairs

GREEDY, SAMPLED = "greedy", "sampled"
MODES = {GREEDY: Sampling(), SAMPLED: Sampling(temperature=1.0)}

_TOGETHER = 128
"""Responses that are made at a time."""


def measure(
  folder: Path, run: Mapping[str, Any], model: str, world: str, rival: str, *, judge: str = "", **ask: int
) -> dict[str, Any]:
  """Lets a policy answer the held-out questions in all contexts of a run, and grades.

  Args:
    folder: of the job.
    run: says contexts and tokenizer.
    model: the policy.
    world: whose questions.
    rival: whose responses it is to win against; "": none.
    judge: command of `judge_lines`; "": the world's graders.
    ask: of `answer_all`.

  Returns:
    "scores": mode -> context -> dimension -> mean; "wins": mode -> context -> share of responses whose sum of grades
    beats that of the rival's to the same question, ties for half; "tokens_per_response" and "ended", of the sampled
    ones; "accuracy": context -> of `pair_accuracy`.
  """
  jax.clear_caches()  # a worker does many jobs
  root, spec = folder.parents[1], json.loads(json.dumps(run))
  spec["model"] |= {"path": model, "arch": {}}
  heldout = root / world / "files" / "heldout.jsonl"
  for mode in MODES:
    answer_all(folder / f"{mode}.jsonl", spec, heldout, mode, **ask)
  pairs = _score_pairs(folder / "pairs.jsonl", spec, heldout)
  dimensions = {name: of["dimension"] for name, of in spec["data"]["contexts"].items()}
  worth = lambda: _worth(folder, root / rival if rival else None, judge)
  return from_graded(lambda: worth() | {"accuracy": pair_accuracy(pairs, heldout, dimensions)})


def from_graded(grade: Callable[[], Any]) -> Any:
  """What the first process finds in files that it wrote, on all: a shared disk may show the others an older state."""
  found = processes.from_first(grade() if jax.process_index() == 0 else None)
  processes.meet()
  return found


def _worth(folder: Path, rival: Path | None, judge: str) -> dict[str, Any]:
  """Of `measure`, but the accuracy."""
  lines = {mode: graded(folder / f"{mode}.jsonl", judge) for mode in MODES}
  found: dict[str, Any] = {"scores": {mode: mean_scores(of) for mode, of in lines.items()}}
  against = lambda mode, other: win_rate(lines[mode], graded(other / f"{mode}.jsonl", judge))
  found["wins"] = {mode: against(mode, rival) for mode in MODES} if rival else {}
  sampled = lines[SAMPLED]
  found["tokens_per_response"] = sum(line["num_tokens"] for line in sampled) / len(sampled)
  return found | {"ended": sum(line["has_ended"] for line in sampled) / len(sampled)}


def answer_all(
  out: Path,
  spec: Mapping[str, Any],
  heldout: Path,
  mode: str,
  *,
  max_new: int,
  draws: int,
  seed: int,
  score: float | None = None,
) -> None:
  """Lets a policy answer, where its file is not there yet.

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
  if not processes.from_first(out.exists()):
    wanted = Request(str(heldout), max_new=max_new, sampling=MODES[mode], score=score, batch_size=_TOGETHER, seed=seed)
    generate(from_dict(dict(spec)), wanted._replace(num_samples=1 if mode == GREEDY else draws), str(out))


def graded(path: Path, judge: str) -> list[dict[str, Any]]:
  """The responses of a file with their grades.

  Args:
    path: of `answer_all`.
    judge: of `measure`.
  """
  if not judge:
    return read_lines(path)
  judge_lines(path, judge)
  return read_judged(path, judge)


def _score_pairs(scored: Path, spec: Mapping[str, Any], heldout: Path) -> Path:
  """What the policy at a run's `model.path` thinks of held-out pairs, in all of its contexts; none may be left out."""
  data = {**spec["data"], "train": {"world": source(heldout)}, "heldout": {}, "heldout_fraction": 0.0}
  if not processes.from_first(scored.exists()):
    score_pairs(from_dict({**spec, "data": {**data, "rule": "derived", "on_error": "raise"}}), str(scored))
  return scored


def source(path: Path) -> dict[str, Any]:
  """A data source of a config: all records of a file."""
  return {"path": str(path), "format": "native", "weight": 1.0}
