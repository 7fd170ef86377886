import pytest

from amopo_jax.lab.spec import DEFAULT_SPEC
from amopo_jax.lab.studies import SMOKE, STUDIES, Ground, shortened


def test_a_smoke_run_has_four_arms():
  assert [arm.method for arm in shortened(STUDIES["baselines"]).arms] == ["amopo", "simpo_equal", "dpo", "raco"]
  assert len(shortened(STUDIES["template"]).arms) == 4
  assert SMOKE.seeds == 1


@pytest.mark.parametrize("name", STUDIES)
def test_arms_have_names_of_their_own_and_methods_of_their_study(name):
  study = STUDIES[name]
  assert len({arm.name for arm in study.arms}) == len(study.arms)
  assert {arm.method for arm in study.arms} <= set(study.methods)


@pytest.mark.parametrize(
  "study, shared", [("ties", True), ("noise", True), ("capacity", False), ("domains", False), ("dialogue", False)]
)
def test_a_ground_has_the_default_origin_where_its_scores_alone_differ(study, shared):
  grounds = [arm.ground for arm in STUDIES[study].arms if arm.ground.name != "default"]
  assert grounds
  assert all((ground.origin == Ground()) is shared for ground in grounds)


def test_an_origin_keeps_what_the_start_is_made_of():
  ground = STUDIES["dialogue"].arms[0].ground
  assert ground.origin == ground
  assert ground.origin.world.turns == 2 != DEFAULT_SPEC.turns
