"""The held-out table: from a run's own files, and from made-up ends whose figures can be added up by hand."""

import json
import shutil

import pytest

from amopo_jax.types import InputError
from amopo_jax.writers import read_metrics
from benchmarks import real_input
from benchmarks.real_input import Seed, markdown, read

ACCURACY, MARGIN = "eval_rewards/accuracies", "eval_rewards/margins"


def ends(*, help, truth, mean):
  """One evaluation: (accuracy, margin) per context and of their mean."""
  values = {"/help": help, "/truth": truth, "": mean}
  return {
    f"{metric}{suffix}": value[at] for suffix, value in values.items() for at, metric in enumerate((ACCURACY, MARGIN))
  }


def make_seed(number, gain, truth=0.5):
  before = ends(help=(0.5, 0.1), truth=(truth, 0.0), mean=(0.5, 0.05))
  after = ends(help=(0.5 + gain, 0.1 + gain), truth=(truth, -0.25), mean=(0.5 + gain / 2, 0.0))
  return Seed(number, ("help", "truth"), before, after, {"help": 10 + number, "truth": 4}, 20 + number, 12)


def cells(line):
  return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_is_the_mean_and_the_sample_deviation_over_the_seeds():
  text = markdown([make_seed(0, 0.1), make_seed(1, 0.3)])
  held, _, head, rule, *rows = text.splitlines()
  assert held == "Held-out pairs: 20 of 12 records (seed 0), 21 of 12 records (seed 1)."
  assert len(cells(head)) == len(cells(rule)) == 8
  assert cells(rows[0]) == [
    "help", "10 / 11", "0.500 ± 0.000", "0.700 ± 0.141", "+0.200 ± 0.141", "0.10 ± 0.00", "0.30 ± 0.14", "+0.20 ± 0.14"
  ]  # fmt: skip
  assert cells(rows[1])[-1] == "-0.25 ± 0.00"
  assert cells(rows[2])[:5] == ["mean", "", "0.500 ± 0.000", "0.600 ± 0.071", "+0.100 ± 0.071"]
  assert len(rows) == 3


def test_one_seed_has_no_deviation_and_a_context_without_an_ordered_pair_no_accuracy():
  rows = [cells(line) for line in markdown([make_seed(0, 0.25, truth=None)]).splitlines()[4:]]
  assert rows[0][2:5] == ["0.500", "0.750", "+0.250"]
  assert rows[1][2:4] == ["nan", "nan"]


def test_a_run_is_read_from_its_workdir(trained):
  workdir = str(trained[0])
  evaluations = [line for line in read_metrics(workdir) if "eval_loss" in line]
  seed = read(workdir)
  assert (seed.before["step"], seed.after["step"]) == (0, evaluations[-1]["step"])
  assert (seed.seed, seed.contexts, seed.pairs, seed.records) == (0, ("helpfulness", "correctness"), 8, 8)
  assert seed.ordered == {name: evaluations[0][f"eval_num_ordered/{name}"] for name in seed.contexts}
  assert 0 < min(seed.ordered.values()) < 8
  row = cells(markdown([seed]).splitlines()[4])
  assert row[:3] == [
    "helpfulness", str(seed.ordered["helpfulness"]), f"{evaluations[0][f'{ACCURACY}/helpfulness']:.3f}"
  ]  # fmt: skip


def test_metrics_of_other_pairs_or_of_an_unfinished_run_are_refused(trained, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(trained[0], workdir)
  lines = read_metrics(str(workdir))
  write = lambda kept: (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
  write([line | {"eval_num_pairs": 9.0} if "eval_loss" in line else line for line in lines])
  with pytest.raises(InputError, match="was evaluated on 9 pairs, not on today's 8"):
    read(str(workdir))
  write([line for line in lines if line["step"] == 0 or "eval_loss" not in line])
  with pytest.raises(InputError, match="has no two evaluations"):
    read(str(workdir))


def test_the_command_prints_and_writes_the_table_or_one_line(trained, tmp_path, monkeypatch, capsys):
  out = tmp_path / "table.md"
  monkeypatch.setattr("sys.argv", ["real_input.py", str(trained[0]), f"--out={out}"])
  real_input.main()
  assert capsys.readouterr().out == out.read_text() == markdown([read(str(trained[0]))])
  monkeypatch.setattr("sys.argv", ["real_input.py", str(tmp_path)])
  with pytest.raises(SystemExit, match=r"real_input: .* has no two evaluations"):
    real_input.main()
