import io
import time

from rich.console import Console

from amopo_jax.console import RunProgress

VALUES = {"loss": 0.5, "rewards/margins": 1.25, "rewards/accuracies": 0.75, "throughput/pairs_per_second": 10.0}


def said(is_terminal):
  console = Console(file=io.StringIO(), width=160, force_terminal=is_terminal)
  with RunProgress(console, total=3, done=1, launched=time.monotonic() - 2.5) as progress:
    progress.first_step()
    progress.update(2, VALUES)
    progress.update(3, VALUES)
  return console.file.getvalue()


def test_a_log_file_gets_lines_with_the_first_and_the_last_step():
  text = said(False)
  assert "step 2/3  loss 0.5000  margin 1.250  acc 0.750  10.0 pairs/s  left 0:00:0" in text
  assert "step 3/3" in text
  assert "first step 2.5 s after the start" in text


def test_a_terminal_gets_a_bar():
  assert "loss 0.5000" in said(True)
  assert "step 3/3  " not in said(True)


def test_figures_of_pairs_that_are_not_compared_are_left_out():
  console = Console(file=io.StringIO(), width=160)
  with RunProgress(console, total=1, done=0, launched=time.monotonic()) as progress:
    progress.update(1, VALUES | {"rewards/margins": float("nan"), "rewards/accuracies": float("nan")})
  assert "step 1/1  loss 0.5000  10.0 pairs/s" in console.file.getvalue()
