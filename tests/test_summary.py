import matplotlib.image
import numpy as np

from amopo_jax import summary
from amopo_jax.console import make_console

CONTEXTS = ["a", "b"]


def evaluation(step, value):
  names = ["rewards/accuracies", "rewards/margins", "rewards/chosen"]
  values = {f"eval_{name}{suffix}": value for name in names for suffix in ("", "/a", "/b")}
  return {"step": step, "eval_loss": 1.0, **values}


LINES = [
  evaluation(0, 0.25),
  {"step": 1, "loss": 1.0, "rewards/margins/a": 0.1, "rewards/margins/b": None, "alpha/a": 0.4, "alpha/b": 0.6},
  evaluation(1, None),
  {"step": 2, "loss": 1.0, "rewards/margins/a": 0.2, "rewards/margins/b": 0.1, "alpha/a": 0.5, "alpha/b": 0.5},
  evaluation(2, 0.75),
]


def test_before_and_after_are_the_first_and_the_last_evaluation():
  assert summary.before_and_after(LINES) == (LINES[0], LINES[-1])
  assert summary.before_and_after(LINES[:2]) is None


def test_a_row_per_context_and_their_mean():
  rows = summary.summary_rows(LINES[0], LINES[-1], CONTEXTS)
  assert rows == [[name, *["0.250 → 0.750"] * 3] for name in ("a", "b", "mean")]


def test_an_unknown_figure_is_a_dash_and_the_markdown_is_a_table():
  text = summary.summary_markdown(LINES[0], LINES[2], CONTEXTS)
  assert "| a | 0.250 → – |" in text
  assert {line.count("|") for line in text.splitlines()} == {5}


def test_the_terminal_table_shows_all_of_it():
  console = make_console()
  with console.capture() as captured:
    console.print(summary.summary_table(LINES[0], LINES[-1], CONTEXTS))
  assert "0.250 → 0.750" in captured.get()
  assert "step 0 → step 2" in captured.get()


def test_the_figure_is_a_picture_with_curves_in_it(tmp_path):
  summary.draw_margins(LINES, CONTEXTS, str(tmp_path / "m.png"))
  drawn = matplotlib.image.imread(tmp_path / "m.png")
  summary.draw_margins(LINES[:1], CONTEXTS, str(tmp_path / "empty.png"))
  empty = matplotlib.image.imread(tmp_path / "empty.png")
  assert drawn.shape[0] > 300
  assert not np.array_equal(drawn, empty)
