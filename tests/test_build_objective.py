import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.build_objective import DEFAULTS, USED, build_conflict, build_objective, check_drawn, layout_used
from amopo_jax.data.encoded import EncodedPair
from amopo_jax.objective import (
  ALPHAS,
  BASELINES,
  REFERENCED,
  TIE_POLICIES,
  WHOLE_BATCH,
  Conflict,
  fixed,
  keep,
  make_amopo,
  make_cpo,
  make_lambda_dpo,
  make_modpo,
  make_orpo,
  make_rrhf,
  make_sft,
  make_sft_both,
  make_simpo,
  make_slic,
  simplex,
)
from amopo_jax.types import InputError, PairInfo, ResponseMoments
from configs import base


@pytest.fixture(scope="module")
def example():
  rng = np.random.default_rng(0)
  draw = lambda low, high: jnp.asarray(rng.uniform(low, high, (3, 2, 2)), jnp.float32)
  length = jnp.full((3, 2, 2), 5.0)
  moments = ResponseMoments(length, draw(-9, -1), draw(1, 3), draw(0.6, 2.0))
  gap = jnp.asarray(rng.uniform(-1, 1, (3, 2)), jnp.float32)
  return moments, draw(-1, 1), PairInfo(gap > 0, gap, jnp.full(3, 1 / 3))


def loss(objective, example):
  return float(objective(*example)[0])


def spec_of(make_spec, **overrides):
  return make_spec(**{f"objective__{name}": value for name, value in overrides.items()}).objective


@pytest.mark.parametrize("alpha", sorted(ALPHAS))
@pytest.mark.parametrize("ties", sorted(TIE_POLICIES))
def test_every_combination_of_names_is_the_objective_of_these_parts(make_spec, example, alpha, ties):
  spec = spec_of(make_spec, alpha=alpha, ties=ties, beta=1.5, target_margin=0.3, gap_margin=0.2, sft_weight=0.1)
  parts = {"beta": 1.5, "target_margin": 0.3, "gap_margin": 0.2, "sft_weight": 0.1}
  expected = make_amopo(alpha_fn=ALPHAS[alpha], tie_policy=TIE_POLICIES[ties], **parts)
  assert loss(build_objective(spec, 2, parts=1), example) == pytest.approx(loss(expected, example))


def test_fixed_weights_come_from_the_config(make_spec, example):
  spec = spec_of(make_spec, alpha="fixed", fixed_alpha=(3.0, 1.0))
  expected = make_amopo(alpha_fn=fixed((3.0, 1.0)), beta=0.8, target_margin=2.0, tie_policy=keep)
  assert loss(build_objective(spec, 2, parts=1), example) == pytest.approx(loss(expected, example))


@pytest.mark.parametrize(
  "name, keys, expected",
  [
    ("sft", {}, make_sft(beta=0.8)),
    ("sft_both", {}, make_sft_both(beta=0.8)),
    ("simpo", {}, make_simpo(beta=0.8, target_margin=2.0)),
    ("orpo", {"ratio_weight": 0.4}, make_orpo(beta=0.8, ratio_weight=0.4)),
    ("cpo", {"sft_weight": 0.3}, make_cpo(beta=0.8, sft_weight=0.3)),
    ("slic", {"sft_weight": 0.3}, make_slic(beta=0.8, target_margin=2.0, sft_weight=0.3)),
    ("rrhf", {"sft_weight": 0.3}, make_rrhf(beta=0.8, sft_weight=0.3)),
  ],
)
def test_the_baselines_by_name(make_spec, example, name, keys, expected):
  objective = build_objective(spec_of(make_spec, name=name, **keys), 2, parts=1)
  assert loss(objective, example) == pytest.approx(loss(expected, example))


@pytest.mark.parametrize(
  "name, keys, expected",
  [
    ("lambda_dpo", {"alpha": "simplex", "ties": "follow_dimension"}, make_lambda_dpo(beta=0.8, alpha_fn=simplex)),
    ("modpo", {"fixed_alpha": (1.0, 2.0), "gap_margin": 0.5}, make_modpo(beta=0.8, weights=(1.0, 2.0), gap_margin=0.5)),
    ("modpo", {}, make_modpo(beta=0.8, weights=(1.0, 1.0), gap_margin=0.0)),
  ],
)
def test_baselines_of_several_dimensions_by_name(make_spec, example, name, keys, expected):
  moments, noise, pairs = example
  referenced = moments, noise, pairs._replace(reference=moments.sum_logp * 0.9)
  objective = build_objective(spec_of(make_spec, name=name, **keys), 2, parts=1)
  assert loss(objective, referenced) == pytest.approx(loss(expected, referenced))


def test_modpo_wants_a_weight_for_every_context(make_spec):
  with pytest.raises(InputError, match=r"config.objective.fixed_alpha: 3 weights for 2 contexts"):
    build_objective(spec_of(make_spec, name="modpo", fixed_alpha=(1.0, 2.0, 3.0)), 2, parts=1)


def test_a_compromise_takes_the_weights_of_the_contexts(make_spec):
  assert build_conflict(spec_of(make_spec), 2) is None
  assert build_conflict(spec_of(make_spec, conflict_radius=0.4), 2) == Conflict((0.5, 0.5), 0.4)
  weighted = spec_of(make_spec, conflict_radius=0.4, alpha="fixed", fixed_alpha=(1.0, 3.0))
  assert build_conflict(weighted, 2) == Conflict((0.25, 0.75), 0.4)


def test_a_compromise_without_a_context_is_refused(make_spec):
  spec = spec_of(make_spec, conflict_radius=0.4, alpha="fixed", fixed_alpha=(1.0, 0.0))
  with pytest.raises(InputError, match="every weight has to be positive"):
    build_conflict(spec, 2)


def test_every_objective_says_what_it_uses():
  assert set(USED) == {"amopo", *BASELINES, *REFERENCED}


@pytest.mark.parametrize(
  "overrides, parts, message",
  [
    ({"name": "ppo"}, 1, r"config\.objective\.name: 'ppo' is unknown; choose one of amopo, cpo, dpo, ipo, kto"),
    (
      {"alpha": "softmax"},
      1,
      r"config\.objective\.alpha: 'softmax' is unknown; choose one of entropy, fixed, gaussian",
    ),
    ({"ties": "drop"}, 1, r"config\.objective\.ties: 'drop' is unknown"),
    ({"alpha": "fixed"}, 1, "0 weights for 2 contexts"),
    ({"alpha": "fixed", "fixed_alpha": (1.0, 1.0, 1.0)}, 1, "3 weights for 2 contexts"),
    ({"fixed_alpha": (1.0, 1.0)}, 1, "is set, but alpha is 'gaussian'; set alpha to fixed"),
    ({"alpha": "gaussian_flat"}, 2, "normalised over the batch.*use one micro-batch on one device"),
    ({"beta": 0.0}, 1, r"config\.objective\.beta: 0\.0 is not positive"),
    ({"beta": float("nan")}, 1, r"config\.objective\.beta: nan is not positive"),
    ({"name": "sft", "alpha": "softmax"}, 1, r"config\.objective\.alpha: 'softmax' is unknown"),
    ({"name": "simpo", "ties": "drop"}, 1, r"config\.objective\.ties: 'drop' is unknown"),
    ({"target_margin": float("inf")}, 1, r"config\.objective\.target_margin: inf is not a finite number"),
    ({"gap_margin": float("inf")}, 1, r"config\.objective\.gap_margin: inf is not a finite number"),
    ({"sft_weight": float("inf")}, 1, r"config\.objective\.sft_weight: inf is not a finite number"),
    (
      {"alpha": "fixed", "fixed_alpha": (1.0, float("nan"))},
      1,
      r"config\.objective\.fixed_alpha: .* is not finite; give one number per context",
    ),
  ],
)
def test_names_and_arguments_that_cannot_be_are_refused(make_spec, overrides, parts, message):
  with pytest.raises(InputError, match=message):
    build_objective(spec_of(make_spec, **overrides), 2, parts=parts)


@pytest.mark.parametrize("name", ["simpo", "sft"])
@pytest.mark.parametrize(
  "key, value",
  [
    ("alpha", "uniform"),
    ("fixed_alpha", (1.0, 1.0)),
    ("ties", "mask_ties"),
    ("gap_margin", 0.5),
    ("sft_weight", 0.5),
    ("ratio_weight", 0.5),
    ("length_weight", 0.5),
  ],
)
def test_a_baseline_refuses_what_it_would_ignore(make_spec, name, key, value):
  with pytest.raises(InputError, match=rf"config\.objective\.{key}: .* has no effect on {name}; leave it at"):
    build_objective(spec_of(make_spec, **{"name": name, key: value}), 2, parts=1)


def test_the_keys_of_some_have_the_defaults_of_the_base_config():
  objective = base.get_config().objective
  assert {key: objective[key] for key in DEFAULTS} == DEFAULTS


def test_sft_accepts_the_target_margin_that_configs_inherit(make_spec):
  assert callable(build_objective(spec_of(make_spec, name="sft", target_margin=0.5), 2, parts=1))


@pytest.mark.parametrize("key, value", [("alpha", "gaussian"), ("loss_power", 1.0), ("uncertainty_rate", 0.1)])
def test_weights_over_the_one_context_that_is_drawn_are_refused(make_spec, key, value):
  spec = spec_of(make_spec, **{"name": "amopo", "alpha": "uniform", key: value})
  with pytest.raises(InputError, match=rf"config\.objective\.{key}: .* of which a step sees 1 of a pair; set it to"):
    check_drawn(spec, 1)
  check_drawn(spec, 2)
  check_drawn(spec, 0)


@pytest.mark.parametrize("key, value", [("per_turn", True), ("gap_power", 1.0), ("conflict_radius", 0.4)])
def test_weights_that_may_be_zero_do_not_go_with_drawn_contexts(make_spec, key, value):
  with pytest.raises(InputError, match=rf"config\.objective\.{key}: .* of which a step sees 2 of a pair"):
    check_drawn(spec_of(make_spec, **{"name": "amopo", key: value}), 2)


def test_objectives_without_weights_go_with_drawn_contexts(make_spec):
  check_drawn(spec_of(make_spec, name="sft"), 1)


OBJECTIVES = [
  *({"name": name} for name in sorted({*BASELINES, *REFERENCED, "amopo"})),
  *({"name": "lambda_dpo", "ties": ties} for ties in TIE_POLICIES),
  *({"name": "amopo", "ties": ties, "sft_weight": weight} for ties in TIE_POLICIES for weight in (0.0, 0.5)),
  *({"name": "amopo", "ties": "mask_ties", "alpha": alpha} for alpha in ALPHAS),
]


@pytest.mark.parametrize("keys", OBJECTIVES, ids=lambda keys: "-".join(map(str, keys.values())))
def test_what_an_objective_does_not_look_at_is_not_laid_out_and_changes_nothing(make_spec, keys):
  """A dimension that agrees, a tie, an inversion: loss and gradient without the sequences that are left out."""
  spec = spec_of(make_spec, **keys)
  objective, gap = build_objective(spec, 3, parts=1), np.asarray([0.5, 0.0, -0.5], np.float32)
  length, one = jnp.full((1, 3, 2), 3.0), np.zeros(1, np.int32)
  pair = EncodedPair((one,) * 3, (one, one), gap > 0, gap, 0, 0, "f:1")
  is_laid_out = layout_used(spec)(pair).is_laid_out
  info = PairInfo(jnp.asarray(gap > 0)[None], jnp.asarray(gap)[None], jnp.ones(1), -length)
  noise = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 2)), jnp.float32)

  def loss(sum_logp, there):
    statistics = (length, sum_logp, length * 0.4, length * 0.2)
    return objective(ResponseMoments(*(x * there for x in statistics)), noise, info)[0]

  call = jax.value_and_grad(loss)
  sum_logp = jnp.asarray([[[-2.0, -2.5], [-1.5, -1.0], [-1.0, -3.0]]])
  whole, part = call(sum_logp, jnp.ones((1, 3, 2))), call(sum_logp, jnp.asarray(is_laid_out[None], jnp.float32))
  np.testing.assert_allclose(part[0], whole[0], rtol=1e-6)
  np.testing.assert_allclose(part[1], whole[1], rtol=1e-5, atol=1e-8)
  seen = np.asarray(whole[1][0]) != 0
  if spec.name in ("rrhf", "slic"):  # a hinge is flat where a pair is learned
    seen, is_laid_out = seen.any(0), is_laid_out.any(0)
  if spec.alpha not in WHOLE_BATCH:
    np.testing.assert_array_equal(seen, is_laid_out)
