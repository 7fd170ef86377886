"""What a study is made of: every arm's config can be built, needs what it needs, and shares what it should."""

import pytest

from amopo_jax import build_data
from amopo_jax.build_objective import build_conflict, build_objective
from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.jobs import jobs_of
from amopo_jax.lab.methods import METHODS
from amopo_jax.lab.studies import SMOKE, STUDIES, Size, shortened
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
    if "run" in job.asked:
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


def test_equal_compute_is_steps_times_contexts():
  by_name = {job.name: job.asked for job in jobs("baselines") if "contexts" in job.asked}
  work = lambda name: by_name[name]["run"]["train"]["steps"] * len(by_name[name]["contexts"])
  assert work("seed0/simpo_equal") == work("seed0/amopo") == 4 * work("seed0/simpo")


def test_a_step_has_the_same_pairs_in_as_many_rows_as_its_contexts_need():
  arms = [job.asked for job in jobs("baselines") if "/start" not in job.name and "contexts" in job.asked]
  assert {arm["run"]["batch"]["max_pairs"] for arm in arms} == {24}
  assert {arm["run"]["batch"]["rows"] / len(arm["contexts"]) for arm in arms} == {12}
  assert all(arm["run"]["batch"]["rows"] == arm["run"]["batch"]["group_rows"] for arm in arms)


def test_every_policy_answers_in_all_contexts_whatever_it_was_trained_in():
  for job in jobs("baselines"):
    if "run" in job.asked:
      assert list(job.asked["run"]["data"]["contexts"]) == ["overall", *DIMENSIONS]


def test_plain_contexts_say_the_same_and_order_by_their_dimensions():
  contexts = next(job for job in jobs("baselines") if job.name == "seed0/modpo").asked["contexts"]
  assert [one["dimension"] for one in contexts.values()] == list(DIMENSIONS)
  assert {one["template"] for one in contexts.values()} == {"focus on everything ."}


def test_a_ground_changes_start_and_arms_and_a_seed_writes_a_shared_world_once():
  capacity = jobs("capacity")
  assert [job.name for job in capacity if job.name.startswith("worlds/")] == ["worlds/64x2-0", "worlds/64x2-1"]
  shapes = {job.asked["run"]["model"]["arch"]["hidden_size"] for job in capacity if "/start@" in job.name}
  assert shapes == {64, 96, 160, 224}
  assert sum(job.name.startswith("worlds/") for job in jobs("noise")) == 2 * 4


def test_a_soup_needs_the_policies_it_is_made_of():
  soup = next(job for job in jobs("baselines") if job.name == "seed1/soup")
  assert set(soup.asked["of"]) <= set(soup.needs)


def test_an_unknown_key_is_refused():
  broken = {"amopo": METHODS["amopo"]._replace(changes={"objective.nmae": "sft"})}
  with pytest.raises(InputError, match=r"config\.objective\.nmae: unknown key"):
    jobs("noise", methods=broken | {name: METHODS[name] for name in ("uniform", "simpo")})


def test_a_smoke_run_has_four_arms():
  assert [arm.method for arm in shortened(STUDIES["baselines"]).arms] == ["amopo", "simpo_equal", "dpo", "raco"]
  assert len(shortened(STUDIES["template"]).arms) == 4
  assert SMOKE.seeds == 1
