import dataclasses
import typing

import pytest

from amopo_jax import run_spec
from amopo_jax.types import InputError


def test_every_key_of_the_base_config_is_a_field_and_the_reverse(make_config):
  config = make_config().to_dict()
  sections = {
    name: kind for name, kind in typing.get_type_hints(run_spec.RunSpec).items() if dataclasses.is_dataclass(kind)
  }
  fields = {f"{name}.{field.name}" for name, kind in sections.items() for field in dataclasses.fields(kind)}
  assert {f"{name}.{key}" for name in sections for key in config[name]} == fields


def test_a_name_that_is_none_of_the_choices_is_refused_with_all_of_them():
  run_spec.check_name("config.data.rule", "derived", ["derived", "annotated"])
  with pytest.raises(InputError, match=r"config\.data\.rule: 'deriv' is unknown; choose one of derived, annotated"):
    run_spec.check_name("config.data.rule", "deriv", ["derived", "annotated"])


def test_every_least_value_is_that_of_a_key(make_config):
  config = {"config": make_config().to_dict()}
  for key in run_spec.AT_LEAST:
    value = config
    for part in key.split("."):
      value = value[part]
    assert isinstance(value, int | float)
