"""What a finished run shows: a table per context, before and after, and `margins.png`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from rich.console import Console
from rich.table import Table

from amopo_jax.writers import read_metrics

FIGURE_FILE = "margins.png"
TABLE_FILE = "summary.md"

_COLUMNS = (
  ("accuracy", "rewards/accuracies"),
  ("margin", "rewards/margins"),
  ("chosen reward", "rewards/chosen"),
)


def show_summary(workdir: str, contexts: Sequence[str], console: Console) -> None:
  """Writes the table and the figure of a finished run into its workdir, and prints the table.

  Args:
    workdir: local or gs:// folder with the run's metrics.
    contexts: names along K.
    console: where it reports to people.
  """
  lines, folder = read_metrics(workdir), epath.Path(workdir)
  if jax.process_index() != 0 or not lines:
    return
  draw_margins(lines, contexts, str(folder / FIGURE_FILE))
  ends = before_and_after(lines)
  if ends:
    (folder / TABLE_FILE).write_text(summary_markdown(*ends, contexts))
    console.print(summary_table(*ends, contexts))
  console.print(f"{folder / FIGURE_FILE}: margins and alpha over steps")


def before_and_after(
  lines: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
  """The first and the last evaluation of a run, None if there were not two.

  Args:
    lines: of `metrics.jsonl`.
  """
  evaluations = [line for line in lines if "eval_loss" in line]
  return (evaluations[0], evaluations[-1]) if len(evaluations) > 1 else None


def summary_rows(before: Mapping[str, Any], after: Mapping[str, Any], contexts: Sequence[str]) -> list[list[str]]:
  """One row per context and one for their mean: accuracy, margin and chosen reward, each before → after."""
  keys = [(name, f"/{name}") for name in contexts] + [("mean", "")]
  show = lambda line, metric, suffix: _number(line[f"eval_{metric}{suffix}"])
  change = lambda metric, suffix: f"{show(before, metric, suffix)} → {show(after, metric, suffix)}"
  return [[name, *(change(metric, suffix) for _, metric in _COLUMNS)] for name, suffix in keys]


def summary_table(before: Mapping[str, Any], after: Mapping[str, Any], contexts: Sequence[str]) -> Table:
  """The rows as a table for the terminal."""
  table = Table(title=f"held-out pairs: step {before['step']} → step {after['step']}")
  table.add_column("context", overflow="fold")
  for name, _ in _COLUMNS:
    table.add_column(name, justify="right")
  for row in summary_rows(before, after, contexts):
    table.add_row(*row, end_section=row[0] == contexts[-1])
  return table


def summary_markdown(before: Mapping[str, Any], after: Mapping[str, Any], contexts: Sequence[str]) -> str:
  """The rows as a Markdown table."""
  head = ["context", *(name for name, _ in _COLUMNS)]
  rows = [head, ["---", *["---:"] * (len(head) - 1)], *summary_rows(before, after, contexts)]
  return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def draw_margins(lines: Sequence[Mapping[str, Any]], contexts: Sequence[str], out: str) -> None:
  """Draws margins (training thin, of what the objective compares; held-out thick, of all) and α per context over steps.

  Args:
    lines: of `metrics.jsonl`.
    contexts: names along K.
    out: path of the PNG, local or gs://.
  """
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  train = [line for line in lines if "loss" in line]
  evaluations = [line for line in lines if "eval_loss" in line]
  figure, (margins, alpha) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
  for number, name in enumerate(contexts):
    colour = f"C{number % 10}"
    margins.plot(*_curve(train, f"rewards/margins/{name}"), color=colour, alpha=0.35, linewidth=1)
    margins.plot(
      *_curve(evaluations, f"eval_rewards/margins/{name}"), color=colour, marker="o", linewidth=2, label=name
    )
    alpha.plot(*_curve(train, f"alpha/{name}"), color=colour, linewidth=1.5, label=name)
  margins.axhline(0, color="0.6", linewidth=0.8)
  margins.set(title="Reward margin (thin: training, thick: held out)", xlabel="step", ylabel="chosen − rejected reward")
  alpha.axhline(1 / len(contexts), color="0.6", linewidth=0.8, linestyle="--")
  alpha.set(title="Weight α (dashed: uniform)", xlabel="step", ylabel="mean α over pairs")
  for axis in (margins, alpha):
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
  with epath.Path(out).open("wb") as file:
    figure.savefig(file, dpi=130, format="png")
  plt.close(figure)


def _curve(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
  known = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
  return [step for step, _ in known], [value for _, value in known]


def _number(value: float | None) -> str:
  return "–" if value is None else f"{value:.3f}"
