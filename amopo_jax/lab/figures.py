"""The pictures of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.jobs import START
from amopo_jax.lab.measure import SAMPLED
from amopo_jax.lab.pool import Answer
from amopo_jax.lab.statistics import Interval, interval
from amopo_jax.lab.studies import Arm, Study
from amopo_jax.lab.tables import by_seed, front_rows, label, score, start_name, with_starts

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""Arm -> name of a metric -> (step, mean over seeds)."""

Best = Mapping[str, float]
"""Dimension, or "mean" -> highest score."""

_MANY = 8
"""Arms that stand below each other."""


def draw_scores(study: Study, answers: Mapping[str, Answer], optima: Mapping[str, Best], out: Path) -> None:
  """Sampled true scores of the starts and the arms, a panel per dimension, with 95 % intervals over seeds.

  Args:
    study, answers: of the report.
    optima: world -> its best scores; those of a single world hold for all grounds.
    out: PNG file.
  """
  arms = _arms_with_scores(study, answers)
  figure, panels = _figure(
    1, len(DIMENSIONS) + 1, (3.0 * (len(DIMENSIONS) + 1) + 2, 0.28 * len(arms) + 1.5), sharey=True
  )
  places = np.arange(len(arms))[::-1]
  for panel, dimension in zip(panels.flat, (*DIMENSIONS, "mean"), strict=True):
    found = {arm.name: interval(list(by_seed(answers, arm.name, score(SAMPLED, dimension)).values())) for arm in arms}
    _draw_bars(panel, arms, places, [found[arm.name] for arm in arms])
    _draw_marks(
      panel, places, [found[name].mean if (name := start_name(arm)) in found else None for arm in arms], "0.1"
    )
    best = [_of_world(arm.ground.name, optima) for arm in arms]
    _draw_marks(panel, places, [None if one is None else one[dimension] for one in best], "C2")
    panel.set(title=dimension.replace("_", " "), xlim=(0, 4.1), xlabel="true score")
    panel.grid(axis="x", alpha=0.25)
  panels.flat[0].set_yticks(places, [label(study, arm) for arm in arms], fontsize=8)
  _save(figure, out)


def _arms_with_scores(study: Study, answers: Mapping[str, Answer]) -> list[Arm]:
  return [arm for arm in with_starts(study) if by_seed(answers, arm.name, score(SAMPLED, "mean"))]


def _draw_bars(panel: Any, arms: Sequence[Arm], places: np.ndarray, found: Sequence[Interval]) -> None:
  """Bars of one colour per ground; those of starts are grey."""
  grounds = list(dict.fromkeys(arm.ground.name for arm in arms))
  shades = ("C0", "C1", "C4", "C9")
  colours = ["0.6" if arm.method == START else shades[grounds.index(arm.ground.name) % len(shades)] for arm in arms]
  errors = [0.0 if np.isnan(one.half) else one.half for one in found]
  means = [one.mean for one in found]
  panel.barh(places, means, xerr=errors, color=colours, height=0.7, error_kw={"elinewidth": 1, "capsize": 2})


def _draw_marks(panel: Any, places: np.ndarray, values: Sequence[float | None], colour: str) -> None:
  """A short line in every row that has a value."""
  known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
  if known:
    rows, where = np.array(known).T
    panel.vlines(where, rows - 0.5, rows + 0.5, colors=colour, linewidth=1, zorder=3)


def _of_world(ground: str, optima: Mapping[str, Best]) -> Best | None:
  return next(iter(optima.values())) if len(optima) == 1 else optima.get(ground)


def draw_curves(study: Study, curves: Curves, out: Path) -> None:
  """Margins and α of every context over training, of the arms that have them; many arms stand two in a row."""
  arms = [arm for arm in study.arms if any(map(_is_margin, curves.get(arm.name, ())))]
  if not arms:
    return
  beside = 2 if len(arms) > _MANY else 1
  rows = -(-len(arms) // beside)
  figure, panels = _figure(rows, 2 * beside, (10.0 * beside, 2.1 * rows + 0.9))
  places = panels.reshape(-1, 2)
  contexts = list(
    dict.fromkeys(name.rpartition("/")[2] for arm in arms for name in curves[arm.name] if _is_margin(name))
  )
  for (margins, alpha), arm in zip(places, arms, strict=False):
    _draw_lines(margins, "rewards/margins/", curves[arm.name], contexts, f"{label(study, arm)}: margin")
    _draw_lines(alpha, "alpha/", curves[arm.name], contexts, f"{label(study, arm)}: α")
    if len(alpha.lines) < 2:  # the weight of a single context is 1
      alpha.clear()
      alpha.set_axis_off()
  for panel in places[len(arms) :].flat:
    panel.set_axis_off()
  for column in panels.T:
    for lowest in [panel for panel in column if panel.axison][-1:]:
      lowest.set_xlabel("step")
  lines = {line.get_label(): line for panel in panels.flat for line in panel.lines}
  figure.legend(
    [lines[name] for name in contexts], contexts, fontsize=8, ncols=len(contexts), loc="outside lower center"
  )
  _save(figure, out)


def _is_margin(name: str) -> bool:
  return name.startswith("rewards/margins/")


def _draw_lines(
  panel: Any, kind: str, metrics: Mapping[str, Sequence[tuple[int, float]]], contexts: Sequence[str], title: str
) -> None:
  for name, points in metrics.items():
    if name.startswith(kind):
      mark, context = "o" if len(points) == 1 else "", name.removeprefix(kind)
      colour = f"C{contexts.index(context) % 10}"
      panel.plot(*zip(*points, strict=True), linewidth=1.2, marker=mark, color=colour, label=context)
  panel.set_title(title, fontsize=9)
  panel.grid(alpha=0.25)


def draw_front(study: Study, answers: Mapping[str, Answer], out: Path) -> None:
  """Sampled scores in every context, in the plane of each two dimensions; grey: arms that others beat."""
  planes = [(one, other) for place, one in enumerate(DIMENSIONS) for other in DIMENSIONS[place + 1 :]]
  figure, panels = _figure(1, len(planes), (4.4 * len(planes), 4.6))
  best = {row[0] for row in front_rows(study, answers)[1:]}
  arms = sorted(_arms_with_scores(study, answers), key=lambda arm: label(study, arm) in best)
  for panel, (one, other) in zip(panels.flat, planes, strict=True):
    shown = 0
    for arm in arms:
      points = _points(answers, arm.name, one, other)
      if label(study, arm) not in best:
        panel.scatter(*points.T, s=12, color="0.75", label="others")
      else:  # hollow, of falling size, so that equal points lie within each other
        look = {
          "marker": "osD^v<>ph8"[(shown + 3 * (shown // 10)) % 10],
          "s": 90 - 6 * min(shown, 12),
          "linewidths": 1.4,
        }
        panel.scatter(*points.T, facecolors="none", edgecolors=f"C{shown % 10}", label=label(study, arm), **look)
        shown += 1
    panel.set(xlabel=one.replace("_", " "), ylabel=other.replace("_", " "))
    panel.grid(alpha=0.25)
  handles = {name: handle for handle, name in zip(*panels.flat[0].get_legend_handles_labels(), strict=True)}
  figure.legend(list(handles.values()), list(handles), fontsize=7, ncols=4, loc="outside lower center")
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
