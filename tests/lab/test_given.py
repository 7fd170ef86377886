import json

import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab import given as module
from amopo_jax.lab.given import Given, check_given, take_data, take_start
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.jobs import jobs_of
from amopo_jax.lab.studies import STUDIES, Size
from amopo_jax.types import InputError

GIVEN = Given("org/model", "train.jsonl", "heldout.jsonl", "judge --strict")
SCORES = dict.fromkeys(DIMENSIONS, 3)
RECORD = json.dumps({"prompt": "a\u2028b", "responses": [{"content": "x", "scores": SCORES}] * 2}, ensure_ascii=False)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
  """Of GIVEN, which are named from here."""
  monkeypatch.chdir(tmp_path)
  for name in ("train.jsonl", "heldout.jsonl"):
    (tmp_path / name).write_text("\ufeff" + f"{RECORD}\n" * 3, encoding="utf-8")


def jobs(name):
  start, run = bundled_spec("lab_sft"), bundled_spec("lab")
  return {job.name: job for job in jobs_of(STUDIES[name], start, run, Size(seeds=2), GIVEN)}


def test_records_that_changed_behind_their_path_are_another_question(tmp_path):
  before = jobs("baselines")["worlds/default-0"].asked
  assert jobs("baselines")["worlds/default-0"].asked == before
  (tmp_path / "heldout.jsonl").write_text(RECORD)
  assert jobs("baselines")["worlds/default-0"].asked != before


def test_every_step_is_logged_whatever_the_config_says_as_costs_are_sums_over_them():
  assert {job.asked["run"]["train"]["log_every"] for name, job in jobs("baselines").items() if "/dpo" in name} == {1}


def test_a_study_begins_with_the_model_and_has_no_base():
  found = jobs("baselines")
  assert not any(name.startswith("base/") for name in found)
  assert found["seed1/start"].asked["model"] == "org/model"
  assert found["seed1/dpo"].asked["start"] == "seed1/start"
  assert found["seed1/dpo"].asked["ask"]["judge"] == "judge --strict"
  assert found["seed1/dpo"].asked["run"]["data"]["tokenizer"] == ""


def test_methods_have_the_rate_of_the_config_but_where_rates_are_compared():
  rate = bundled_spec("lab").optim.learning_rate
  assert {job.asked["run"]["optim"]["learning_rate"] for job in jobs("baselines").values() if "run" in job.asked} == {
    rate
  }
  assert jobs("rates")["seed100/dpo_3e-05"].asked["run"]["optim"]["learning_rate"] == 3e-5


def test_more_pairs_per_step_are_a_multiple_of_the_config_s():
  ours, batch = bundled_spec("lab").batch, jobs("baselines")["seed0/one_context_wide"].asked["run"]["batch"]
  assert (batch["max_pairs"], batch["group_rows"]) == (round(3.6 * ours.max_pairs), -(-36 * ours.group_rows // 10))
  assert batch["rows"] == batch["group_rows"]


def test_a_study_of_worlds_is_refused():
  with pytest.raises(InputError, match="noise: changes worlds"):
    jobs("noise")


def test_seeds_take_other_records_and_answer_the_same_questions(tmp_path):
  for name in ("train", "heldout"):
    (tmp_path / f"{name}.jsonl").write_text("".join(f'"{name} {n}"\n' for n in range(20)))
  given = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "heldout")}
  for seed in (0, 1):
    (tmp_path / str(seed)).mkdir()
    assert take_data(tmp_path / str(seed), seed=seed, num_train=8, num_heldout=99, contents="", **given) == {}
  texts = {
    (seed, name): (tmp_path / str(seed) / "files" / f"{name}.jsonl").read_text() for seed in (0, 1) for name in given
  }
  assert len(set(texts[0, "train"].splitlines())) == 8
  assert texts[0, "train"] != texts[1, "train"]
  assert texts[0, "heldout"] == texts[1, "heldout"]
  assert len(texts[0, "heldout"].splitlines()) == 20


def test_the_start_is_the_model_wherever_it_is(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "measure", lambda *given, **ask: {"given": given[2:], **ask})
  found = take_start(tmp_path, model="org/model", run={}, world="worlds/default-0", ask={"judge": "j"})
  assert found == {"given": ("org/model", "worlds/default-0", ""), "judge": "j"}
  assert (tmp_path / "path.txt").read_text() == "org/model"


def test_what_is_missing_is_told_before_hours_are_spent(tmp_path):
  check_given(GIVEN)
  for text, message in (
    ("[1, 2]\n", "record 1 is no line with responses scored in helpfulness"),
    (RECORD + '\n{"responses": [{"content": "x"}]}\n', "record 2 is no line with responses"),
    (json.dumps({"responses": [{"scores": SCORES}] * 3}), "record 1 has 3 responses; give records of two"),
  ):
    (tmp_path / "heldout.jsonl").write_text(text)
    with pytest.raises(InputError, match=f"--heldout_data=heldout.jsonl: {message}"):
      check_given(GIVEN)
  (tmp_path / "train.jsonl").unlink()
  with pytest.raises(InputError, match=r"--train_data=train.jsonl: no such file"):
    check_given(GIVEN)


def test_a_text_with_a_separator_of_lines_stays_whole(tmp_path):
  take_data(tmp_path, seed=0, train="train.jsonl", heldout="heldout.jsonl", num_train=2, num_heldout=9, contents="")
  lines = (tmp_path / "files" / "train.jsonl").read_text(encoding="utf-8").split("\n")
  assert [json.loads(line)["prompt"] for line in lines[:2]] == ["a\u2028b"] * 2
