"""The jobs of a study: every arm's config can be built, needs what it needs, and shares what it should."""

import dataclasses
import itertools
import json

import pytest

from amopo_jax import build_data
from amopo_jax.build_objective import build_conflict, build_objective, layout_used
from amopo_jax.cli.configs import bundled_spec
from amopo_jax.data.collate import count_pairs
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.jobs import jobs_of, with_asked
from amopo_jax.lab.methods import METHODS
from amopo_jax.lab.studies import STUDIES, Size
from amopo_jax.lab.write import write_world
from amopo_jax.policy import find_policy
from amopo_jax.prepare import train_stream
from amopo_jax.run_codec import from_dict
from amopo_jax.types import InputError


def jobs(name, **more):
  study = STUDIES[name]._replace(**more)
  return jobs_of(study, bundled_spec("lab_sft"), bundled_spec("lab"), Size(seeds=2))


def contexts_of(job):
  """Those that it is trained in, else those that a soup answers in."""
  return job.asked.get("contexts", job.asked["run"]["data"]["contexts"])


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_can_be_built(name):
  for job in jobs(name):
    if "run" in job.asked and not job.name.startswith("asked"):
      spec = from_dict(job.asked["run"] | {"data": job.asked["run"]["data"] | {"contexts": contexts_of(job)}})
      build_data.plan_data(spec)
      assert build_objective(spec.objective, len(spec.data.contexts), parts=1)
      build_conflict(spec.objective, len(spec.data.contexts))


@pytest.mark.parametrize("name", STUDIES)
def test_jobs_come_after_what_they_need_and_have_names_of_their_own(name):
  seen = set()
  for job in jobs(name):
    assert set(job.needs) <= seen
    assert job.name not in seen
    seen.add(job.name)


def test_arms_of_a_seed_share_start_and_order_and_seeds_differ():
  by_name = {job.name: job for job in jobs("baselines")}
  arms = [by_name[f"seed0/{name}"] for name in METHODS if not METHODS[name].soup]
  assert {arm.asked["start"] for arm in arms} == {"seed0/start"}
  assert {arm.asked["run"]["seed"] for arm in arms} == {1000}
  assert by_name["seed1/amopo"].asked["run"]["seed"] == 1001
  assert by_name["seed0/start"].asked["run"]["seed"] != by_name["seed1/start"].asked["run"]["seed"]


def test_the_start_of_a_seed_is_made_of_its_base_of_one_context_and_a_world_of_its_own():
  by_name = {job.name: job for job in jobs("baselines")}
  for seed in range(2):
    base, start = by_name[f"base/default-{seed}"], by_name[f"seed{seed}/start"]
    assert list(base.asked["contexts"]) == ["overall"]
    assert (base.asked["start"], base.asked["world"]) == ("", f"base/world-default-{seed}")
    assert start.asked["start"] == base.name
    assert base.name in start.needs
  assert by_name["base/default-0"].asked["run"]["seed"] != by_name["base/default-1"].asked["run"]["seed"]
  seeds = [job.asked["seed"] for name, job in by_name.items() if "world" in name.split("/")[1] or "worlds" in name]
  assert len(set(seeds)) == len(seeds) == 4


def test_equal_compute_is_more_steps():
  steps = {job.name: job.asked["run"]["train"]["steps"] for job in jobs("baselines") if "contexts" in job.asked}
  assert steps["seed0/amopo"] == steps["seed0/simpo"] == 100
  assert steps["seed0/simpo_equal"] == steps["seed0/drawn_equal"] == 360
  assert steps["seed0/more_sft_equal"] == 720


def test_a_step_has_a_micro_batch_for_each_context():
  own = [job for job in jobs("baselines") if job.name.startswith("seed") and not job.name.endswith(("/start", "_wide"))]
  arms = [job.asked for job in own if "contexts" in job.asked]
  assert {arm["run"]["batch"]["max_pairs"] for arm in arms} == {24}
  in_step = lambda arm: arm["run"]["data"]["contexts_per_pair"] or len(arm["contexts"])
  assert {arm["run"]["batch"]["rows"] / in_step(arm) for arm in arms} == {9}
  assert all(arm["run"]["batch"]["accumulation"] == in_step(arm) for arm in arms)


@pytest.mark.parametrize(("study", "ways"), [("baselines", 8), ("dialogue", 1)])
def test_every_step_has_24_pairs_or_as_many_more_as_its_method_says(tmp_path, study, ways):
  world = STUDIES[study].arms[0].ground.world
  write_world(tmp_path, seed=0, num_train=400, num_heldout=1, spec=world)
  seen = set()
  for name, asked in [(job.name, job.asked) for job in jobs(study) if job.asked.get("records") == "files"]:
    run = json.loads(json.dumps(asked["run"]))
    run["data"] |= {"contexts": asked["contexts"], "tokenizer": f"{tmp_path}/tokenizer", "heldout": {}}
    run["data"]["train"] = {"world": {"path": f"{tmp_path}/train.jsonl", "format": "native", "weight": 1.0}}
    run["model"] |= {"path": "", "arch": bundled_spec("lab_sft").model.arch}
    spec = from_dict(run)
    layout = dataclasses.replace(layout_used(spec.objective), contexts=spec.data.contexts_per_pair)
    if (shown := (layout, spec.data.rule, spec.batch.max_pairs, *asked["contexts"])) not in seen:
      seen.add(shown)
      data = build_data.build_data(spec, find_policy("", dict(spec.model.arch)), layout=layout)
      stream = train_stream(spec, data, range(build_data.num_streams(spec.batch)), num_workers=0)
      most = 86 if name.endswith("_wide") else 24
      assert [count_pairs(groups) for groups in itertools.islice(stream, 4)] == [most] * 4, shown
  assert len(seen) > ways


def test_every_policy_answers_in_all_contexts_whatever_it_was_trained_in():
  for job in jobs("baselines"):
    if "run" in job.asked:
      assert list(job.asked["run"]["data"]["contexts"]) == ["overall", *DIMENSIONS]


def test_plain_contexts_say_the_same_and_order_by_their_dimensions():
  contexts = next(job for job in jobs("baselines") if job.name == "seed0/modpo").asked["contexts"]
  assert [one["dimension"] for one in contexts.values()] == list(DIMENSIONS)
  assert {one["template"] for one in contexts.values()} == {"focus on everything ."}


def test_a_prompt_that_tells_all_scores_takes_the_place_of_the_one_that_asks_for_everything():
  asked = next(job for job in jobs("baselines") if job.name == "seed0/scored_sft").asked
  text = "focus on " + " ".join(f"{name.replace('_', ' ')} score {{score:{name}}}" for name in DIMENSIONS) + " ."
  assert asked["contexts"] == {"overall": {"dimension": "", "template": text, "low": 0.0, "high": 4.0}}
  assert asked["run"]["data"]["contexts"]["overall"] == asked["contexts"]["overall"]
  assert asked["run"]["data"]["contexts"]["helpfulness"]["template"] == "focus on {dimension} score {score} ."


def test_a_ground_changes_start_and_arms_and_a_seed_writes_a_shared_world_once():
  capacity = jobs("capacity")
  assert sum(job.name.startswith("worlds/") for job in capacity) == 2
  starts = {
    job.name.removeprefix("seed0/"): job.asked["run"]["model"]["arch"] for job in capacity if "d0/start" in job.name
  }
  widths = {name: arch["hidden_size"] for name, arch in starts.items()}
  assert widths == {"start@64x2": 64, "start@96x3": 96, "start": 128, "start@192x5": 192}
  assert sum(job.name.startswith("worlds/") for job in jobs("noise")) == 2 * 4


@pytest.mark.parametrize("name", ["ties", "noise"])
def test_worlds_that_differ_in_their_scores_alone_have_base_and_start_in_common(name):
  names = [job.name for job in jobs(name)]
  assert [job for job in names if job.startswith("base/") and "world" not in job] == [
    "base/default-0",
    "base/default-1",
  ]
  assert [job for job in names if "/start" in job] == ["seed0/start", "seed1/start"]
  trained = {job.asked["world"] for job in jobs(name) if job.name.startswith("seed0/amopo@noise")}
  assert trained == ({f"worlds/noise-0.{n}-0" for n in (1, 2, 3)} if name == "noise" else set())


@pytest.mark.parametrize("name", ["ties", "noise", "capacity", "domains", "template", "steering", "weights"])
def test_what_another_study_did_on_the_default_ground_is_the_same_job(name):
  default = {job.name: job for job in jobs("baselines")}
  shared = [job for job in jobs(name) if job.name in default]
  assert all(default[job.name] == job for job in shared)
  assert {"base/default-0", "seed0/start"} <= {job.name for job in shared}


def test_other_scores_are_asked_for_by_jobs_of_their_own():
  own = jobs("steering")
  policies = [job for job in own if job.name.startswith("seed")]
  asked = {job.name: job for job in own if job.name.startswith("asked")}
  assert len(asked) == len(policies) == 10
  assert asked["asked1/amopo"].needs == ("worlds/default-1", "seed1/amopo")
  assert asked["asked1/amopo"].asked["ask"] == policies[-1].asked["ask"]
  assert not any(job.name.startswith("asked") for job in jobs("baselines"))
  found = with_asked({"seed0/amopo": {"wins": {}}, "asked0/amopo": {"asked": {"1": 2}}, "seed0/simpo": {}})
  assert found["seed0/amopo"] == {"wins": {}, "asked": {"1": 2}}
  assert found["seed0/simpo"] == {"asked": {}}


def test_a_soup_needs_the_policies_it_is_made_of():
  soup = next(job for job in jobs("baselines") if job.name == "seed1/soup")
  assert set(soup.asked["of"]) <= set(soup.needs)


def test_rates_are_tried_on_worlds_that_no_other_study_sees():
  own = {job.name: job for job in jobs("rates")}
  assert {name.split("/")[0] for name in own if name.startswith("seed")} == {"seed100", "seed101"}
  rate = lambda name: own[f"seed100/{name}"].asked["run"]["optim"]["learning_rate"]
  assert (rate("dpo_3e-05"), rate("dpo_0.0001"), rate("dpo_0.001")) == (3e-5, 1e-4, 1e-3)


def test_an_unknown_key_is_refused():
  broken = {"amopo": METHODS["amopo"]._replace(changes={"objective.nmae": "sft"})}
  with pytest.raises(InputError, match=r"config\.objective\.nmae: unknown key"):
    jobs("noise", methods=broken | {name: METHODS[name] for name in ("uniform", "simpo")})
