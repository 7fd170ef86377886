"""The report of a study on answers that are made up: what is on the page, in the files, in the pictures."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.report import write_report
from amopo_jax.lab.studies import STUDIES, Arm, Size

STUDY = STUDIES["baselines"]._replace(arms=(Arm("amopo"), Arm("simpo")), scores=(1.0,))
WINS = {mode: {"overall": 0.5} for mode in ("greedy", "sampled")}
FULL = {name: 4.0 for name in DIMENSIONS}


def answer(value, contexts=("overall",)):
  scores = dict.fromkeys([*DIMENSIONS, "mean"], value)
  found = {context: scores for context in contexts}
  more = {"accuracy": {"overall": 0.75}, "tokens_per_response": 10.0, "ended": 1.0, "sequences": 8, "seconds": 2.0}
  return {
    "scores": {"greedy": found, "sampled": found},
    "asked": {"1": found},
    "wins": WINS,
  } | more


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  """A report of two seeds; one run of SimPO failed."""
  folder = tmp_path_factory.mktemp("study")
  answers = {
    "worlds/default-0": {"chance": FULL, "optimum": FULL, "demonstrated": FULL, "commit": "abc"},
    "seed0/start": answer(1.0),
    "seed1/start": answer(1.5),
    "seed0/amopo": answer(2.0, ("overall", *DIMENSIONS)),
    "seed1/amopo": answer(3.0, ("overall", *DIMENSIONS)),
    "seed0/simpo": answer(1.0) | {"commit": "def"},
  }
  for seed, margin in ((0, 0.5), (1, 1.5)):
    run = folder / f"seed{seed}" / "amopo" / "run"
    run.mkdir(parents=True)
    lines = [{"step": step, "loss": 1.0, "rewards/margins/overall": margin * step} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  undone = {"seed1/simpo": "InputError: no room"}
  size = Size(seeds=2)
  return write_report(STUDY, answers, undone, folder, size=size, command="amopo lab baselines", seconds=60.0)


def test_the_page_says_what_was_done_what_came_out_and_what_did_not(report):
  page = report.read_text()
  assert page.startswith("# AMoPO and its baselines\n")
  assert "    amopo lab baselines\n" in page
  assert re.search(r"^\d{4}-\d\d-\d\d, \d+ cores of \S.*; commits abc, def; 1 min", page, re.MULTILINE)
  assert "2 seeds, each with a world of its own, a start of 300 steps" in page
  assert "| AMoPO, Gaussian weights | 2.50 ± 6.35 |" in page  # t(0.975, 1) = 12.71 times the error 0.5
  assert "- seed1/simpo: InputError: no room" in page
  for picture in ("scores.png", "curves.png", "front.png"):
    assert f"]({picture})" in page


def test_the_tables_have_as_many_cells_in_every_row(report):
  tables = [block.splitlines() for block in report.read_text().split("\n\n") if block.startswith("|")]
  assert len(tables) >= 5
  for lines in tables:
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("name", ["scores.png", "curves.png", "front.png"])
def test_pictures_show_something(report, name):
  pixels = np.asarray(Image.open(report.parent / name).convert("RGB"))
  assert min(pixels.shape[:2]) > 200
  coloured = np.ptp(pixels.astype(int), axis=-1) > 60
  assert coloured.sum() > 100


def test_each_ground_has_its_own_optimum_and_means_are_over_its_seeds(tmp_path):
  world = lambda score: {key: dict.fromkeys(DIMENSIONS, score) for key in ("chance", "optimum", "demonstrated")}
  answers = {"worlds/default-0": world(3.0), "worlds/default-1": world(4.0), "worlds/a-b-0": world(1.0)}
  answers |= {"seed0/start": answer(1.0), "seed0/amopo": answer(2.0)}
  page = write_report(STUDY, answers, {}, tmp_path, size=Size(seeds=2), command="amopo lab", seconds=1.0).read_text()
  line = (
    "At the optimum: (default) helpfulness 3.50, correctness 3.50, instruction_following 3.50; (a-b) helpfulness 1.00"
  )
  assert line in page


def test_of_verdicts_that_are_not_there_none_is_by_chance(tmp_path):
  answers = {f"seed0/{name}": answer(1.0) for name in ("start", "amopo", "simpo")}
  page = lambda: write_report(STUDY, answers, {}, tmp_path, size=Size(seeds=2), command="", seconds=1.0).read_text()
  assert "verdicts by" not in page()
  answers |= {f"seed1/{name}": answer(1.5) for name in ("start", "amopo", "simpo")}
  assert "Of the 2 verdicts by" in page()
  assert "the green one" not in page()  # there is no world
