"""Tables by hand, on answers that are made up."""

import pytest

from amopo_jax.lab import tables
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.studies import STUDIES, Arm

STUDY = STUDIES["baselines"]._replace(arms=(Arm("amopo"), Arm("simpo"), Arm("modpo")), scores=(0.0,))


def answer(*values, contexts=("overall",), wins=0.5):
  scores = dict(zip(DIMENSIONS, values, strict=True)) | {"mean": sum(values) / len(values)}
  found = {context: scores for context in contexts}
  asked = {"0": {name: scores for name in DIMENSIONS}}
  more = {"accuracy": {"overall": 0.75}, "tokens_per_response": 10.0, "ended": 1.0, "sequences": 8, "seconds": 2.0}
  return {
    "scores": {"greedy": found, "sampled": found},
    "asked": asked,
    "wins": {mode: {"overall": wins} for mode in ("greedy", "sampled")},
  } | more


ANSWERS = {
  "worlds/default-0": {},
  "seed0/start": answer(1.0, 1.0, 1.0),
  "seed1/start": answer(1.0, 2.0, 1.0),
  "seed0/amopo": answer(2.0, 2.0, 2.0, wins=1.0),
  "seed1/amopo": answer(2.0, 2.0, 2.0, wins=0.5),
  "seed0/simpo": answer(1.0, 1.0, 4.0),
  "seed0/modpo": answer(3.0, 1.0, 2.0, contexts=("overall", *DIMENSIONS)),
}


def row(rows, name):
  return next(cells[1:] for cells in rows if cells[0] == name)


def test_scores_are_means_over_seeds():
  rows = tables.score_rows(STUDY, ANSWERS, "greedy")
  assert rows[0] == ["", *DIMENSIONS, "mean"]
  assert row(rows, "the start")[0] == "1.00 ± 0.00"
  assert row(rows, "SimPO") == ["1.00", "1.00", "4.00", "2.00"]
  assert row(rows, "MODPO")[0] == "3.00"


def test_a_dimension_s_own_context_is_read_where_it_alone_was_asked_for():
  contexts = {"overall": dict.fromkeys([*DIMENSIONS, "mean"], 1.0)}
  contexts |= {
    name: dict.fromkeys([*DIMENSIONS, "mean"], 0.0) | {name: 3.0 + place} for place, name in enumerate(DIMENSIONS)
  }
  found = answer(1.0, 1.0, 1.0) | {"scores": {"greedy": contexts, "sampled": contexts}}
  rows = tables.own_rows(STUDY, {"seed0/simpo": found})
  assert row(rows, "SimPO") == ["3.00", "4.00", "5.00", "4.00"]


def test_a_method_that_is_told_all_scores_is_read_where_it_is_told_them():
  told, alone = answer(3.0, 3.0, 3.0), answer(1.0, 1.0, 1.0)["scores"]["sampled"]["overall"]
  asked = {"0": {"overall": answer(0.5, 0.5, 0.5)["scores"]["sampled"]["overall"]} | dict.fromkeys(DIMENSIONS, alone)}
  told["scores"]["sampled"] |= dict.fromkeys(DIMENSIONS, alone)
  study = STUDY._replace(arms=(Arm("scored_sft"), Arm("simpo")))
  answers = {"seed0/scored_sft": told | {"asked": asked}, "seed0/simpo": told | {"asked": asked}}
  label = study.methods["scored_sft"].label
  assert row(tables.own_rows(study, answers), label) == ["3.00"] * 4
  assert row(tables.own_rows(study, answers), "SimPO") == ["1.00"] * 4
  assert row(tables.asked_rows(study, answers), label)[1:3] == ["0.50", "3.00"]


def test_changes_are_taken_seed_by_seed():
  rows = tables.change_rows(STUDY, ANSWERS, "sampled")
  gains = row(rows, "AMoPO, Gaussian weights")
  assert gains[0] == "+1.00 ± 0.00"
  assert gains[1].startswith("+0.50 ± ")
  assert gains[-2:] == ["1 of 2", "0.75 ± 3.18"]
  assert row(rows, "SimPO")[-2:] == ["0 of 1", "0.50"]
  assert row(tables.change_rows(STUDY, ANSWERS, "greedy"), "SimPO")[-2:] == ["0 of 1", "0.50"]


def test_the_first_is_what_the_others_are_compared_with():
  rows = tables.first_rows(STUDY, ANSWERS, "sampled")
  assert [cells[0] for cells in rows[1:]] == ["SimPO", "MODPO"]
  assert row(rows, "SimPO") == ["−1.00", "−1.00", "+2.00", "+0.00", "–"]


def test_scores_asked_for():
  rows = tables.asked_rows(STUDY, ANSWERS)
  assert rows[0] == ["", "dimension", "asked 0", "asked 4", "slope"]
  modpo = next(cells for cells in rows if cells[:2] == ["MODPO", DIMENSIONS[0]])
  assert modpo[2:4] == ["3.00", "3.00"]
  assert float(modpo[4]) == pytest.approx(0, abs=1e-9)
  assert next(cells for cells in rows if cells[:2] == ["SimPO", DIMENSIONS[2]])[2:] == ["4.00", "–", "–"]


def test_volume_is_a_share_of_the_cube():
  assert tables.volume(STUDY._replace(scores=()), answer(4.0, 4.0, 4.0)) == 1.0
  assert tables.volume(STUDY._replace(scores=()), answer(2.0, 4.0, 1.0)) == pytest.approx(0.125)


def test_verdicts_of_a_mode_are_of_that_mode_s_scores():
  of = lambda greedy, sampled: (
    answer(1.0, 1.0, 1.0)
    | {"scores": {"greedy": answer(*greedy)["scores"]["greedy"], "sampled": answer(*sampled)["scores"]["sampled"]}}
  )
  answers = {f"seed{n}/amopo": of((2.0, 2.0, 2.0), (2.0, 2.0, 2.0)) for n in range(3)}
  answers |= {f"seed{n}/simpo": of((1.0, 1.0, 1.0), (3.0, 3.0, 3.0 + n / 100)) for n in range(3)}
  answers["seed1/simpo"] = of((1.0, 1.0, 1.1), (3.0, 3.0, 3.0))
  assert [row(tables.first_rows(STUDY, answers, mode), "SimPO")[-1] for mode in ("greedy", "sampled")] == [
    "worse",
    "better",
  ]


def test_the_front_has_what_nothing_beats():
  rows = tables.front_rows(STUDY, ANSWERS)
  assert rows[0] == ["", "asked for", "score", *DIMENSIONS]
  assert {(cells[0], cells[1], cells[2]) for cells in rows[1:]} == {
    ("AMoPO, Gaussian weights", "overall", "4"),
    ("AMoPO, Gaussian weights", "helpfulness", "0"),
    ("AMoPO, Gaussian weights", "correctness", "0"),
    ("AMoPO, Gaussian weights", "instruction_following", "0"),
    ("SimPO", "overall", "4"),
    ("SimPO", "helpfulness", "0"),
    ("SimPO", "correctness", "0"),
    ("SimPO", "instruction_following", "0"),
    ("MODPO", "overall", "4"),
    *(("MODPO", name, score) for name in DIMENSIONS for score in ("0", "4")),
  }


def test_arms_on_a_ground_without_the_first_method_are_compared_with_nothing():
  noisy = next(arm.ground for arm in STUDIES["noise"].arms if arm.ground.name == "noise-0.1")
  study = STUDY._replace(arms=(Arm("amopo"), Arm("simpo"), Arm("uniform", noisy), Arm("simpo", noisy)))
  answers = ANSWERS | {"seed0/uniform@noise-0.1": answer(1.0, 1.0, 1.0), "seed0/simpo@noise-0.1": answer(1.0, 1.0, 1.0)}
  assert [cells[0] for cells in tables.first_rows(study, answers, "sampled")[1:]] == ["SimPO"]


def test_the_front_is_of_the_seeds_that_are_there():
  missing = ANSWERS["seed1/amopo"] | {"asked": {}}
  rows = tables.front_rows(STUDY, ANSWERS | {"seed1/amopo": missing})
  assert ("AMoPO, Gaussian weights", "helpfulness", "0") in {tuple(cells[:3]) for cells in rows[1:]}


def test_each_ground_has_a_front_of_its_own():
  noisy = next(arm.ground for arm in STUDIES["noise"].arms if arm.ground.name == "noise-0.1")
  study = STUDY._replace(arms=(Arm("amopo"), Arm("simpo", noisy)))
  rows = tables.front_rows(
    study, {"seed0/amopo": answer(2.0, 2.0, 2.0), "seed0/simpo@noise-0.1": answer(1.0, 1.0, 1.0)}
  )
  assert {cells[0] for cells in rows[1:]} == {"AMoPO, Gaussian weights", "SimPO (noise-0.1)"}


def test_a_start_is_on_the_front_of_no_ground_where_an_arm_beats_it():
  noisy = next(arm.ground for arm in STUDIES["noise"].arms if arm.ground.name == "noise-0.1")
  study = STUDY._replace(arms=(Arm("amopo", noisy),))
  rows = tables.front_rows(
    study, {"seed0/start": answer(1.0, 1.0, 1.0), "seed0/amopo@noise-0.1": answer(3.0, 3.0, 3.0)}
  )
  assert {cells[0] for cells in rows[1:]} == {"AMoPO, Gaussian weights (noise-0.1)"}
