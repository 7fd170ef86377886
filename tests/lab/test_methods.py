import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.methods import ALL, DIALOGUE, EACH, MARGINS, METHODS, OVERALL, PLAIN, RATES, TIES, TOLD, WEIGHTS
from amopo_jax.objective.alpha import ALPHAS, WHOLE_BATCH

RATE = "optim.learning_rate"
EVERY = {"METHODS": METHODS, "WEIGHTS": WEIGHTS, "RATES": RATES, "MARGINS": MARGINS, "TIES": TIES, "DIALOGUE": DIALOGUE}


@pytest.mark.parametrize("methods", EVERY.values(), ids=EVERY)
def test_labels_tell_methods_apart(methods):
  assert len({method.label for method in methods.values()}) == len(methods)


@pytest.mark.parametrize("methods", EVERY.values(), ids=EVERY)
def test_contexts_are_a_group_or_a_dimension(methods):
  assert {method.contexts for method in methods.values()} <= {OVERALL, ALL, EACH, TOLD, PLAIN, *DIMENSIONS}


def test_a_soup_is_of_methods_that_are_there():
  (soup,) = (method for method in METHODS.values() if method.soup)
  assert set(soup.soup) == {f"only_{name}" for name in DIMENSIONS} <= set(METHODS)


def test_a_method_takes_the_rate_of_the_config_or_one_that_was_tried_of_it():
  ours = bundled_spec("lab").optim.learning_rate
  for name, method in METHODS.items():
    of = name.removesuffix("_equal")  # the control of compute has the rate of the method itself
    tried = {key.rsplit("_", 1)[1] for key in RATES if key.rsplit("_", 1)[0] == of}
    assert not tried or f"{method.changes.get(RATE, ours):g}" in tried


@pytest.mark.parametrize("name", ["simpo", "one_context", "drawn"])
def test_a_control_of_compute_is_the_method_with_more_steps(name):
  method, control = METHODS[name], METHODS[f"{name}_equal"]
  assert control._replace(label=method.label, work=1) == method
  assert control.work == 1 + len(DIMENSIONS)


def test_the_tried_differ_from_the_method_in_their_rate_alone():
  for key, tried in RATES.items():
    changes = {name: value for name, value in METHODS[key.rsplit("_", 1)[0]].changes.items() if name != RATE}
    assert tried.changes == {RATE: float(key.rsplit("_", 1)[1]), **changes}


def test_weights_are_all_that_one_pair_can_have():
  assert set(ALPHAS) - set(WHOLE_BATCH) <= set(WEIGHTS)
