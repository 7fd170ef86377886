import pytest

from amopo_jax.lab.spec import DEFAULT_SPEC
from amopo_jax.lab.studies import SMOKE, STUDIES, Ground, chosen, shortened
from amopo_jax.types import InputError


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


def test_a_study_with_some_of_its_arms_keeps_its_order():
  some = chosen(STUDIES["baselines"], ["dpo", "amopo"])
  assert [arm.name for arm in some.arms] == ["amopo", "dpo"]
  assert some.name != "baselines"  # nor is its report in the place of the whole one's
  assert [arm.name for arm in chosen(STUDIES["template"], ["amopo@after"]).arms] == ["amopo@after"]


@pytest.mark.parametrize(
  ("names", "told"),
  [(["amopo", "dpoo"], "no arm 'dpoo'; choose among amopo, uniform"), (["soup"], "soup averages only_helpfulness")],
)
def test_arms_that_a_study_has_not_or_cannot_do_alone_are_told(names, told):
  with pytest.raises(InputError, match=told):
    chosen(STUDIES["baselines"], names)
