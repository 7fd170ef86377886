"""The report of a study: a page, its figures and its data."""

import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from amopo_jax.host import free_cores
from amopo_jax.lab import tables
from amopo_jax.lab.csv_files import read_curves, write_curves, write_runs, write_scores
from amopo_jax.lab.figures import draw_curves, draw_front, draw_scores
from amopo_jax.lab.measure import GREEDY, SAMPLED
from amopo_jax.lab.pool import CODE, TOOK, Answer
from amopo_jax.lab.studies import Size, Study
from amopo_jax.provenance import processor


def write_report(
  study: Study,
  answers: Mapping[str, Answer],
  undone: Mapping[str, str],
  folder: Path,
  *,
  size: Size,
  command: str,
  seconds: float,
) -> Path:
  """Writes report.md, scores.csv, runs.csv, curves.csv and the figures.

  Args:
    study: what was compared.
    answers: of `with_asked`.
    undone: job -> why there is no answer.
    folder: of the study; the report has one of its own in there.
    size: how much was done.
    command: that does it again.
    seconds: that this took, what had been done before left out.

  Returns:
    Path of report.md.
  """
  out = folder / "reports" / study.name
  out.mkdir(parents=True, exist_ok=True)
  worlds = _worlds(answers)
  curves = read_curves(study, answers, folder)
  write_scores(answers, out / "scores.csv")
  write_runs(study, answers, out / "runs.csv")
  write_curves(curves, out / "curves.csv")
  optima = {name: world["optimum"] | {"mean": _mean(world["optimum"])} for name, world in worlds.items()}
  draw_scores(study, answers, optima, out / "scores.png")
  draw_curves(study, curves, out / "curves.png")
  draw_front(study, answers, out / "front.png")
  worked = sum(answer.get(TOOK, 0.0) for answer in answers.values())
  spent = f"{seconds / 60:.0f} min, {worked / 60:.0f} min of a worker for all of its jobs"
  head = _head(study, size, command, f"{_code(answers)}{spent}", worlds)
  page = "\n\n".join([head, *_undone(undone), *_sections(study, answers)])
  (out / "report.md").write_text(page + "\n")
  return out / "report.md"


def _head(study: Study, size: Size, command: str, spent: str, worlds: Mapping[str, Answer]) -> str:
  versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib", "optax"))
  return (
    f"# {study.title}\n\n{time.strftime('%Y-%m-%d')}, {len(free_cores())} cores "
    f"of {processor()}, {versions}; {spent}.\n\n    {command}\n\n"
    f"{_of_worlds(size, worlds) if worlds else _of_given(size)} Means over seeds ± half the 95 % interval "
    "(Student's t); differences are taken seed by seed. Steps and their pairs are as many for all arms, but "
    "where the methods' keys say otherwise. All are asked "
    "in the same words, but for score-conditioned SFT, which is told all scores."
  )


def _of_given(size: Size) -> str:
  return (
    f"{size.seeds} seeds, each with {size.train} of the records by chance, or all where there are fewer; arms of "
    f"{size.steps} steps, all from the model that was given and at the config's learning rate; the same "
    f"{size.heldout} held-out questions for all, {size.draws} draws for each. Scores are the judge's, from 0 to 4."
  )


def _of_worlds(size: Size, worlds: Mapping[str, Answer]) -> str:
  listed = lambda scores: ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
  where = (lambda ground: f"({ground}) ") if len(worlds) > 1 else lambda ground: ""
  shown = lambda of: "; ".join(f"{where(ground)}{listed(world[of])}" for ground, world in worlds.items())
  return (
    f"{size.seeds} seeds, each with a world of its own, a start of {size.start_steps} steps of supervised fine-tuning "
    f"on {size.start_records} records (good and bad responses alike; it is made of a base of its own, which learned on "
    f"as many others in one context for {size.base_steps} steps) and arms of {size.steps} steps on {size.train} "
    f"others; {size.heldout} held-out questions, {size.draws} draws for each. True scores run from 0 to 4. By chance: "
    f"{shown('chance')}. Of the responses that the start imitates: {shown('demonstrated')}. At the optimum: "
    f"{shown('optimum')}."
  )


def _sections(study: Study, answers: Mapping[str, Answer]) -> list[str]:
  found = [
    "## True scores\n\nOf responses sampled at temperature 1, asked for everything. What a method was not trained in, "
    f"it knows from the start.\n\n{_markdown(tables.score_rows(study, answers, SAMPLED))}\n\n![scores](scores.png)\n\n"
    f"The dark line in a row is at its start{', the green one at the optimum' if _worlds(answers) else ''}.",
    f"## Against the start\n\n{_markdown(tables.change_rows(study, answers, SAMPLED))}",
    f"## Against the first\n\n{_markdown(tables.first_rows(study, answers, SAMPLED))}\n\n{_by_chance(study, answers)}",
    "## Asked for one dimension\n\nEach dimension's score, sampled, where the highest was asked for in that one; of "
    "score-conditioned SFT, where it was told the highest in all."
    f"\n\n{_markdown(tables.own_rows(study, answers))}",
  ]
  if study.scores:
    found.append(f"## Asked for and given\n\n{_markdown(tables.asked_rows(study, answers))}")
  return [
    *found,
    f"## True scores, greedy\n\n{_markdown(tables.score_rows(study, answers, GREEDY))}\n\n"
    f"{_markdown(tables.change_rows(study, answers, GREEDY))}\n\n"
    f"{_markdown(tables.first_rows(study, answers, GREEDY))}",
    f"## Pairs, responses, compute\n\n{_markdown(tables.cost_rows(study, answers))}\n\nAccuracy is that of held-out "
    "pairs by mean log-probability per token, over all contexts, each by the pairs that its dimension orders as the "
    "annotator did; prompts of dimensions tell the score of the chosen response (those of score-conditioned SFT all of "
    "them), so it is the accuracy of telling which response has that score. Sequences are prompts with a response; "
    "hypervolume is the share of the scores' cube that the sampled scores, a point per context and score asked for, "
    "dominate together. A "
    "reference costs its methods one more pass over their pairs, without gradients, before the first step; the soup "
    "costs what its parts do, and what a start's base cost is not in here.",
    "## Trade-offs\n\nSampled scores, a point per context and score asked for.\n\n![front](front.png)\n\n"
    f"Nothing on the same ground beats these in all dimensions:\n\n{_markdown(tables.front_rows(study, answers))}",
    "## Over training\n\nOf the pairs that an arm compares: where ties are masked, those that the dimension orders as "
    "the annotator did.\n\n![curves](curves.png)",
    f"## The methods' keys\n\n{_keys(study)}",
  ]


def _by_chance(study: Study, answers: Mapping[str, Answer]) -> str:
  rows = [row for mode in (SAMPLED, GREEDY) for row in tables.first_rows(study, answers, mode)[1:]]
  count = sum(row[-1] != "–" for row in rows)
  if not count:
    return ""
  return (
    f"Of the {count} verdicts by 95 % intervals here and below, of greedy responses, {0.05 * count:.1f} are "
    "expected to see a difference where there is none."
  )


def _keys(study: Study) -> str:
  """What each method changes of the config."""
  lines = []
  for name in dict.fromkeys(arm.method for arm in study.arms):
    method = study.methods[name]
    told = " ".join(f"{key}={value}" for key, value in method.changes.items())
    trained = f"average of {', '.join(method.soup)}" if method.soup else f"contexts={method.contexts} {told}"
    more = ((method.work, "steps"), (method.pairs, "pairs of a step"))
    lines.append(f"- {method.label}: `{trained}`" + "".join(f", {n:g} times the {of}" for n, of in more if n > 1))
  return "\n".join(lines)


def _worlds(answers: Mapping[str, Answer]) -> dict[str, Answer]:
  """Ground -> means over its worlds; of records that were given there are none."""
  found: dict[str, list[Answer]] = {}
  for name, answer in answers.items():
    if name.startswith("worlds/") and "optimum" in answer:
      found.setdefault(name.removeprefix("worlds/").rpartition("-")[0], []).append(answer)
  return {ground: _over_worlds(of) for ground, of in found.items()}


def _over_worlds(worlds: Sequence[Answer]) -> Answer:
  """Means of what each world tells."""
  return {
    key: {name: _mean({n: world[key][name] for n, world in enumerate(worlds)}) for name in worlds[0][key]}
    for key in worlds[0]
    if key not in (TOOK, CODE)
  }


def _code(answers: Mapping[str, Answer]) -> str:
  """Commits of the code that did the jobs; those of a folder may be of several."""
  found = dict.fromkeys(answer[CODE] for answer in answers.values() if answer.get(CODE))
  return f"commit{'s' if len(found) > 1 else ''} {', '.join(found)}; " if found else ""


def _undone(undone: Mapping[str, str]) -> list[str]:
  lines = "\n".join(f"- {name}: {why}" for name, why in undone.items())
  return [f"## Not done\n\nMeans are over the seeds that are there.\n\n{lines}"] if undone else []


def _markdown(rows: tables.Rows) -> str:
  head, *rest = rows
  return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rest))


def _mean(scores: Mapping[Any, float]) -> float:
  return sum(scores.values()) / len(scores)
