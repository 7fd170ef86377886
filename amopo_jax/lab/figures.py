"""The pictures of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.measure import SAMPLED
from amopo_jax.lab.pool import Answer
from amopo_jax.lab.statistics import Interval, interval
from amopo_jax.lab.studies import Study
from amopo_jax.lab.tables import by_seed, label, score, with_starts

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""Arm -> name of a metric -> (step, mean over seeds)."""

_MANY = 8
"""Arms that stand below each other."""


def draw_scores(study: Study, answers: Mapping[str, Answer], best: Mapping[str, float], out: Path) -> None:
  """Sampled true scores of the starts and the arms, a panel per dimension, with 95 % intervals over seeds."""
  arms = [arm for arm in with_starts(study) if by_seed(answers, arm.name, score(SAMPLED, "mean"))]
  figure, panels = _figure(
    1, len(DIMENSIONS) + 1, (3.0 * (len(DIMENSIONS) + 1) + 2, 0.28 * len(arms) + 1.5), sharey=True
  )
  places = np.arange(len(arms))[::-1]
  for panel, dimension in zip(panels.flat, (*DIMENSIONS, "mean"), strict=True):
    found: list[Interval] = [
      interval(list(by_seed(answers, arm.name, score(SAMPLED, dimension)).values())) for arm in arms
    ]
    means = [one.mean for one in found]
    errors = [0.0 if np.isnan(one.half) else one.half for one in found]
    colours = ["0.35" if arm.method == "start" else "C0" for arm in arms]
    panel.barh(places, means, xerr=errors, color=colours, height=0.7, error_kw={"elinewidth": 1, "capsize": 2})
    panel.axvline(means[0], color="0.35", linewidth=0.8, linestyle="--")
    if best:
      panel.axvline(best[dimension], color="C2", linewidth=1)
    panel.set(title=dimension.replace("_", " "), xlim=(0, 4.1), xlabel="true score")
    panel.grid(axis="x", alpha=0.25)
  panels.flat[0].set_yticks(places, [label(study, arm) for arm in arms], fontsize=8)
  _save(figure, out)


def draw_curves(study: Study, curves: Curves, out: Path) -> None:
  """Margins and α of every context over training, of the arms that have them; many arms stand two in a row."""
  arms = [arm for arm in study.arms if curves.get(arm.name)]
  if not arms:
    return
  beside = 2 if len(arms) > _MANY else 1
  rows = -(-len(arms) // beside)
  figure, panels = _figure(rows, 2 * beside, (10.0 * beside, 2.1 * rows + 0.6))
  places = panels.reshape(-1, 2)
  for (margins, alpha), arm in zip(places, arms, strict=False):
    _draw_lines(margins, "rewards/margins/", curves[arm.name], f"{label(study, arm)}: margin")
    _draw_lines(alpha, "alpha/", curves[arm.name], f"{label(study, arm)}: α")
  for panel in places[len(arms) :].flat:
    panel.set_axis_off()
  for panel in panels[-1]:
    panel.set_xlabel("step")
  _save(figure, out)


def _draw_lines(panel: Any, kind: str, metrics: Mapping[str, Sequence[tuple[int, float]]], title: str) -> None:
  for name, points in metrics.items():
    if name.startswith(kind):
      mark = "o" if len(points) == 1 else ""
      panel.plot(*zip(*points, strict=True), linewidth=1.2, marker=mark, label=name.removeprefix(kind))
  panel.set_title(title, fontsize=9)
  panel.grid(alpha=0.25)
  if len(panel.get_legend_handles_labels()[1]) > 1:
    panel.legend(fontsize=7)


def draw_front(study: Study, answers: Mapping[str, Answer], out: Path) -> None:
  """Sampled scores in every context, in the plane of each two dimensions."""
  planes = [(one, other) for place, one in enumerate(DIMENSIONS) for other in DIMENSIONS[place + 1 :]]
  figure, panels = _figure(1, len(planes), (4.4 * len(planes), 4.6))
  arms = with_starts(study)
  for panel, (one, other) in zip(panels.flat, planes, strict=True):
    for number, arm in enumerate(arms):
      points = _points(answers, arm.name, one, other)
      if len(points):  # hollow and of falling size, so that equal points lie within each other
        look = {
          "marker": "osD^v<>ph8"[(number + 3 * (number // 10)) % 10],
          "s": 24 + 10 * (len(arms) - number),
          "linewidths": 1.4,
        }
        panel.scatter(*points.T, facecolors="none", edgecolors=f"C{number % 10}", label=label(study, arm), **look)
    panel.set(xlabel=one.replace("_", " "), ylabel=other.replace("_", " "))
    panel.grid(alpha=0.25)
  figure.legend(*panels.flat[0].get_legend_handles_labels(), fontsize=7, ncols=4, loc="outside lower center")
  _save(figure, out)


def _points(answers: Mapping[str, Answer], name: str, one: str, other: str) -> np.ndarray:
  """Means over seeds of two scores, a point per context (and score asked for)."""
  found: dict[str, list[tuple[float, float]]] = {}
  own = [answer for job, answer in answers.items() if job.startswith("seed") and job.partition("/")[2] == name]
  for answer in own:
    for asked, contexts in {"": answer["scores"][SAMPLED], **answer["asked"]}.items():
      for context, scores in contexts.items():
        found.setdefault(f"{context}{asked}", []).append((scores[one], scores[other]))
  return np.array([np.mean(points, 0) for points in found.values()])


def _figure(rows: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Any, Any]:
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  return plt.subplots(rows, columns, figsize=size, constrained_layout=True, squeeze=False, **shared)


def _save(figure: Any, out: Path) -> None:
  import matplotlib.pyplot as plt

  figure.savefig(out, dpi=130, format="png")
  plt.close(figure)
