import json

import numpy as np
import pytest

from amopo_jax.build_objective import layout_used
from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.methods import ALL, DIALOGUE, EACH, MARGINS, METHODS, OVERALL, PLAIN, RATES, TIES, TOLD, WEIGHTS
from amopo_jax.lab.write import write_world
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
    of = name.removesuffix("_equal").removesuffix("_wide")  # controls of compute have a rate of the method itself
    tried = {key.rsplit("_", 1)[1] for key in RATES if key.rsplit("_", 1)[0] == of}
    assert not tried or f"{method.changes.get(RATE, ours):g}" in tried


@pytest.mark.parametrize("name", ["simpo", "one_context", "drawn", "cpo", "more_sft"])
def test_a_control_of_compute_is_the_method_with_more_steps(name):
  bare = lambda method: {key: value for key, value in method.changes.items() if key != RATE}
  method, control = METHODS[name], METHODS[f"{name}_equal"]
  assert control._replace(label=method.label, work=1, changes=bare(control)) == method._replace(changes=bare(method))
  assert control.changes.get(RATE) in ({3e-5} if name == "simpo" else {method.changes.get(RATE)})
  sequences = 1 if name == "more_sft" else 2  # of a pair
  assert control.work * sequences / 2 == 3.6


def test_amopo_lays_out_as_many_sequences_of_a_pair_as_3_6_contexts_have(tmp_path):
  write_world(tmp_path, seed=0, num_train=3000, num_heldout=1)
  agree = []
  for line in (tmp_path / "train.jsonl").read_text().splitlines():
    record = json.loads(line)
    chosen, rejected = (record["responses"][i]["scores"] for i in (record["chosen"], 1 - record["chosen"]))
    agree.append([chosen[name] > rejected[name] for name in DIMENSIONS])
  layout, of_each = layout_used(bundled_spec("lab").objective), 1 + len(DIMENSIONS)
  assert (layout.chosen, layout.rejected) == ("all", "agreeing")
  assert of_each + 1 + np.mean(agree) * len(DIMENSIONS) == pytest.approx(2 * 3.6, abs=0.1)


@pytest.mark.parametrize("kind", ["one_context", "drawn"])
def test_more_pairs_per_step_are_as_many_sequences_as_more_steps(kind):
  wide, longer = METHODS[f"{kind}_wide"], METHODS[f"{kind}_equal"]
  assert wide._replace(label=longer.label, pairs=1, work=wide.pairs) == longer


def test_the_tried_differ_from_the_method_in_their_rate_alone():
  for key, tried in RATES.items():
    changes = {name: value for name, value in METHODS[key.rsplit("_", 1)[0]].changes.items() if name != RATE}
    assert tried.changes == {RATE: float(key.rsplit("_", 1)[1]), **changes}


def test_weights_are_all_that_one_pair_can_have():
  assert set(ALPHAS) - set(WHOLE_BATCH) <= set(WEIGHTS)
