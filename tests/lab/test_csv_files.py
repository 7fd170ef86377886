"""What stands in the files beside a report."""

import csv
import json

import pytest

from amopo_jax.lab.csv_files import read_curves, write_curves, write_runs, write_scores
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.studies import STUDIES, Arm

STUDY = STUDIES["baselines"]._replace(arms=(Arm("amopo"), Arm("simpo")), scores=(1.0,))


def answer(value, contexts=("overall",)):
  found = {context: dict.fromkeys([*DIMENSIONS, "mean"], value) for context in contexts}
  scores = {"scores": {"greedy": found, "sampled": found}, "asked": {"1": found}}
  return scores | {"wins": {"sampled": {"overall": 0.5}}, "accuracy": {"overall": 0.75, "correctness": None}}


ANSWERS = {
  "worlds/default-0": {},
  "seed0/amopo": answer(2.0, ("overall", *DIMENSIONS)) | {"sequences": 8},
  "seed1/amopo": answer(3.0, ("overall", *DIMENSIONS)),
  "seed0/simpo": answer(1.0),
}


@pytest.fixture
def read(tmp_path):
  """Writes a file, and gives its rows."""

  def run(write, what):
    write(what, tmp_path / "found.csv")
    return list(csv.DictReader((tmp_path / "found.csv").open()))

  return run


def test_scores_are_there_run_by_run(read):
  rows = read(write_scores, ANSWERS)
  of = lambda **wanted: [row for row in rows if all(row[key] == value for key, value in wanted.items())]
  found = of(seed="1", arm="amopo", mode="sampled", asked="highest", context="overall")
  assert [row["score"] for row in found] == ["3.0"] * 3
  assert len(of(arm="simpo", asked="1")) == len(DIMENSIONS)
  assert {row["seed"] for row in of(arm="simpo")} == {"0"}


def test_what_a_run_took_and_won_is_there_run_by_run(read):
  rows = read(lambda answers, path: write_runs(STUDY, answers, path), ANSWERS)
  found = {row["measure"]: float(row["value"]) for row in rows if (row["seed"], row["arm"]) == ("0", "amopo")}
  volume = (2 / 4) ** 3
  assert found == {"accuracy/overall": 0.75, "wins/sampled/overall": 0.5, "hypervolume": volume, "sequences": 8.0}
  assert {row["arm"] for row in rows} == {"amopo", "simpo"}


def test_what_was_not_asked_for_all_scores_has_no_hypervolume(read):
  rows = read(
    lambda answers, path: write_runs(STUDY, answers, path), {"seed0/amopo": ANSWERS["seed0/amopo"] | {"asked": {}}}
  )
  assert "hypervolume" not in {row["measure"] for row in rows}


def test_curves_are_means_over_seeds(read, tmp_path):
  for seed, margin in ((0, 0.5), (1, 1.5)):
    run = tmp_path / f"seed{seed}" / "amopo" / "run"
    run.mkdir(parents=True)
    lines = [{"step": step, "loss": 1.0, "rewards/margins/overall": margin * step} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  rows = read(write_curves, read_curves(STUDY, ANSWERS, tmp_path))
  assert [(row["step"], row["mean over seeds"]) for row in rows] == [("1", "1"), ("2", "2")]
  assert {(row["arm"], row["metric"]) for row in rows} == {("amopo", "rewards/margins/overall")}
