import dataclasses
import json

import pytest

from amopo_jax import run_codec, run_spec
from amopo_jax.types import InputError


def test_a_config_survives_the_way_to_json_and_back(make_spec):
  spec = make_spec(mesh__rules=((".*", ("fsdp", None)),))
  assert run_codec.from_dict(json.loads(json.dumps(run_codec.to_dict(spec)))) == spec


@pytest.mark.parametrize(
  "key, value, message",
  [
    ("optim__learning_rate", "fast", r"config\.optim\.learning_rate: expected float, found 'fast'"),
    ("batch__rows", 2.5, r"config\.batch\.rows: expected int, found 2.5"),
    ("batch__rows", True, r"config\.batch\.rows: expected int, found True"),
    ("data__shuffle", 1, r"config\.data\.shuffle: expected bool"),
    ("optim__lerning_rate", 1.0, r"config\.optim\.lerning_rate: unknown key; the keys are name, learning_rate"),
    ("objective__fixed_alpha", 3.0, r"config\.objective\.fixed_alpha: expected a tuple"),
  ],
)
def test_wrong_keys_and_types_are_named(make_config, key, value, message):
  config = make_config().to_dict()
  section, name = key.split("__")
  config[section][name] = value
  with pytest.raises(InputError, match=message):
    run_codec.from_dict(config)


def test_a_missing_key_is_named(make_config):
  config = make_config().to_dict()
  del config["optim"]["clip"]
  with pytest.raises(InputError, match=r"config\.optim\.clip: missing key"):
    run_codec.from_dict(config)


def test_whole_numbers_are_floats_where_floats_are_wanted(make_spec):
  spec = make_spec(optim__clip=1)
  assert isinstance(spec.optim.clip, float)


def test_the_difference_names_the_key_and_both_values(make_spec):
  found = run_codec.difference(make_spec(), make_spec(optim__clip=1.0))
  assert found == ["config.optim.clip: 3.0 != 1.0"]
  assert run_codec.difference(make_spec(), make_spec()) == []


def test_two_runs_differ_in_keys_and_in_the_order_of_the_contexts(make_spec):
  spec = make_spec()
  assert run_codec.difference(spec, spec) == []
  assert run_codec.difference(spec, make_spec(optim__clip=1.0)) == ["config.optim.clip: 3.0 != 1.0"]
  turned = dataclasses.replace(spec.data, contexts=dict(reversed(spec.data.contexts.items())))
  assert run_codec.difference(spec, dataclasses.replace(spec, data=turned)) == [
    "config.data.contexts: helpfulness, correctness != correctness, helpfulness (another order)"
  ]
  both = run_codec.difference(spec, dataclasses.replace(make_spec(train__log_every=9), data=turned))
  assert [line.partition(":")[0] for line in both] == ["config.train.log_every", "config.data.contexts"]


@pytest.mark.parametrize("key", run_spec.AT_LEAST)
def test_numbers_below_the_least_are_refused(make_config, key):
  config = make_config().to_dict()
  _, *section, name = key.split(".")
  (config[section[0]] if section else config)[name] = run_spec.AT_LEAST[key] - 1
  with pytest.raises(InputError, match=rf"{key}: -?\d+(\.0)? cannot be; the least is {run_spec.AT_LEAST[key]}"):
    run_codec.from_dict(config)
