"""The step's promise: the same loss and the same new parameters whatever the devices, the mesh or the micro-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from amopo_jax import build, build_data, mesh
from amopo_jax.build_objective import build_conflict, build_objective, build_uncertainty, layout_used
from amopo_jax.build_step import build_optimizer
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import pack_all
from amopo_jax.data.pipeline import make_stream
from amopo_jax.load import load_policy
from amopo_jax.metrics import summarize
from amopo_jax.models.transformer import abstract_params
from amopo_jax.objective.conflict import conflict_coefficients
from amopo_jax.policy import find_policy
from amopo_jax.state import init_state
from amopo_jax.step import draw_noise, make_eval_step, make_moments_step, make_train_step


@pytest.fixture(scope="module")
def spec(make_spec):
  return make_spec(batch__group_rows=1, batch__row_length=192, objective__target_margin=0.5)


@pytest.fixture(scope="module")
def groups(spec):
  data = build_data.build_data(spec, find_policy("", dict(spec.model.arch)))
  stream = make_stream(
    data.train, data.pack, seed=0, num_epochs=1, num_streams=8, owned=range(8), num_workers=0, shuffle=False
  )
  return next(stream)


def one_step(spec, groups, *, sizes=(1, 1, 1, 1), accumulation=1, slices=1, with_evaluation=False):
  devices = jax.devices()[: int(np.prod(sizes))]
  grid = mesh.make_mesh(**dict(zip(mesh.AXES, sizes, strict=True)), slices=slices, devices=devices)
  source = find_policy("", dict(spec.model.arch))
  placed = build.param_shardings(spec, abstract_params(source.config, jnp.float32), grid)
  params = load_policy(source, dtype=jnp.float32, shardings=placed)
  tx, schedule = build_optimizer(spec, 10)
  score_fn = build.build_score_fn(spec.model, source.config, 2, grid)
  objective = build_objective(spec.objective, 2, parts=1)
  batch = mesh.place_batch(collate(groups, accumulation=accumulation, num_pairs=count_pairs(groups)), grid)
  state, metrics = jax.jit(make_train_step(score_fn, objective, tx, schedule))(init_state(params, tx, seed=3), batch)
  if not with_evaluation:
    return jax.device_get((state, metrics, None, None, batch.index))
  sums = jax.jit(make_eval_step(score_fn, objective))(params, batch)
  moments = jax.jit(make_moments_step(score_fn))(params, batch)
  return jax.device_get((state, metrics, sums, moments, batch.index))


@pytest.fixture(scope="module")
def reference(spec, groups):
  return one_step(spec, groups, with_evaluation=True)


SPLITS = [((8, 1, 1, 1), 1), ((1, 2, 4, 1), 1), ((2, 1, 2, 2), 2)]
MORE_SPLITS = [
  ((1, 1, 1, 4), 1),
  ((2, 2, 1, 2), 2),
  ((2, 1, 1, 1), 1),
  ((1, 4, 1, 1), 1),
  ((1, 8, 1, 1), 1),
  ((1, 1, 1, 1), 4),
  ((1, 2, 1, 1), 4),
  ((1, 1, 1, 1), 8),
]
MORE_SPLITS += [((1, 1, 8, 1), 1), ((1, 1, 2, 2), 4)]


@pytest.mark.parametrize(
  "sizes, accumulation, slices",
  [
    *((*split, 1) for split in SPLITS),
    *(pytest.param(*split, 1, marks=pytest.mark.slow) for split in MORE_SPLITS),
    pytest.param((2, 2, 1, 2), 2, 2, marks=pytest.mark.slow),
    pytest.param((4, 2, 1, 1), 1, 2, marks=pytest.mark.slow),
  ],
  ids=str,
)
def test_loss_and_gradient_do_not_depend_on_the_split(spec, groups, reference, sizes, accumulation, slices):
  state, metrics, *_ = one_step(spec, groups, sizes=sizes, accumulation=accumulation, slices=slices)
  assert_same(metrics["sums"], reference[1]["sums"])
  np.testing.assert_allclose(metrics["grad_norm"], reference[1]["grad_norm"], rtol=1e-5)
  np.testing.assert_allclose(metrics["param_norm"], reference[1]["param_norm"], rtol=1e-5)
  assert int(state.step) == 1


def gradient(spec, groups, sizes, accumulation=1):
  """Jitted (parameters, batch) -> the gradient of a step, and its arguments."""
  grid = mesh.make_mesh(**dict(zip(mesh.AXES, sizes, strict=True)), devices=jax.devices()[: int(np.prod(sizes))])
  source = find_policy("", dict(spec.model.arch))
  placed = build.param_shardings(spec, abstract_params(source.config, jnp.float32), grid)
  score_fn = build.build_score_fn(spec.model, source.config, 2, grid)
  keep = optax.GradientTransformation(lambda params: params, lambda grads, *_: (grads, grads))
  objective, conflict = build_objective(spec.objective, 2, parts=1), build_conflict(spec.objective, 2)
  step = make_train_step(score_fn, objective, keep, optax.constant_schedule(1.0), conflict=conflict)
  state = init_state(load_policy(source, dtype=jnp.float32, shardings=placed), keep, seed=3)
  batch = mesh.place_batch(collate(groups, accumulation=accumulation, num_pairs=count_pairs(groups)), grid)
  return mesh.jit_for(grid, lambda state, batch: step(state, batch)[0].opt_state, out_shardings=placed), state, batch


def test_supervised_learning_is_the_same_without_the_rejected_responses(make_spec):
  spec = make_spec(batch__group_rows=1, batch__row_length=192, objective__name="sft", objective__beta=1.0)
  layouts = Layout(), Layout(rejected="none")
  data = [build_data.build_data(spec, find_policy("", dict(spec.model.arch)), layout=one) for one in layouts]
  pairs = [[one.train[0][number] for number in range(3)] for one in data]
  groups = [pack_all(some, one.pack, lookahead=4) for some, one in zip(pairs, data, strict=True)]
  whole, part = (one_step(spec, some) for some in groups)
  np.testing.assert_allclose(part[1]["grad_norm"], whole[1]["grad_norm"], rtol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=5e-5), part[0].params, whole[0].params)
  seen = [summarize(metrics["sums"], ("a", "b")) for _, metrics, *_ in (whole, part)]
  assert seen[1]["loss"] == pytest.approx(seen[0]["loss"], rel=1e-6)
  assert seen[1]["num_tokens"] < seen[0]["num_tokens"]


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_a_step_is_the_same_without_what_the_tie_policy_drops(make_spec, sft_weight):
  keys = {"objective__ties": "mask_ties", "objective__sft_weight": sft_weight}
  spec = make_spec(batch__rows=8, batch__group_rows=8, batch__row_length=192, **keys)
  layouts = Layout(), layout_used(spec.objective)
  data = [build_data.build_data(spec, find_policy("", dict(spec.model.arch)), layout=one) for one in layouts]
  pairs = [[one.train[0][number] for number in range(6)] for one in data]
  assert not all(pair.is_laid_out.all() for pair in pairs[1])
  groups = [pack_all(some, one.pack, lookahead=7) for some, one in zip(pairs, data, strict=True)]
  assert [len(some) for some in groups] == [1, 1]
  whole, part = (one_step(spec, some) for some in groups)
  np.testing.assert_allclose(part[1]["grad_norm"], whole[1]["grad_norm"], rtol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=5e-5), part[0].params, whole[0].params)
  seen = [summarize(metrics["sums"], ("a", "b")) for _, metrics, *_ in (whole, part)]
  assert seen[1]["num_tokens"] < seen[0]["num_tokens"]
  for name in ("loss", "num_pairs", "loss/a", "loss/b", "alpha/a", "num_ordered/b", "rewards/accuracies/a"):
    assert seen[1][name] == pytest.approx(seen[0][name], rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("attention, window", [("auto", 25), pytest.param("xla", None, marks=pytest.mark.slow)])
def test_every_gradient_is_that_of_one_device_where_tokens_are_split(make_spec, groups, attention, window):
  """Grouped key heads, several pairs and tries per row, a window of positions, two micro-batches."""
  arch = dict(make_spec().model.arch)
  arch |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": window}
  spec = make_spec(model__arch=arch, model__attention=attention, batch__group_rows=1, batch__row_length=192)
  one, split = (gradient(spec, groups, sizes, 2) for sizes in ((1, 1, 1, 1), (1, 2, 2, 2)))
  for mine, theirs in zip(*(jax.tree.leaves(jax.device_get(run(*given))) for run, *given in (split, one)), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(
  "sizes, accumulation", [pytest.param((1, 1, 1, 1), 1, marks=pytest.mark.slow), ((1, 2, 1, 2), 2)]
)
def test_a_compromise_is_made_of_the_gradients_of_single_contexts(make_spec, groups, sizes, accumulation):
  def run(weights, radius, *how):
    spec = make_spec(
      batch__group_rows=1,
      batch__row_length=192,
      objective__alpha="fixed",
      objective__fixed_alpha=weights,
      objective__conflict_radius=radius,
    )
    call, *given = gradient(spec, groups, *how)
    return jax.device_get(call(*given))

  alone = [jax.tree.leaves(run(weights, 0.0, (1, 1, 1, 1))) for weights in ((1.0, 0.0), (0.0, 1.0))]
  flat = np.stack([np.concatenate([leaf.reshape(-1) for leaf in leaves]) for leaves in alone]).astype(np.float64)
  factors = conflict_coefficients(jnp.asarray(flat @ flat.T, jnp.float32), jnp.asarray([0.25, 0.75]), 0.6)
  found = jax.tree.leaves(run((1.0, 3.0), 0.6, sizes, accumulation))
  together = np.concatenate([leaf.reshape(-1) for leaf in found])
  assert not np.allclose(factors, [0.25, 0.75], rtol=1e-2)
  np.testing.assert_allclose(together, np.asarray(factors) @ flat, rtol=0, atol=1e-5 * np.abs(together).max())


def test_devices_that_share_a_row_share_its_work(make_spec, groups):
  """Per device, by the compiler's count, with no loop that would hide turns of attention or head from it."""
  whole = {"model__attention_chunk": 192, "model__head_chunk": 8 * 192}
  spec = make_spec(batch__group_rows=1, batch__row_length=192, model__attention="xla", **whole)
  flops = {}
  for sizes in ((1, 1, 1, 1), (1, 1, 4, 1)):
    run, *given = gradient(spec, groups, sizes)
    flops[sizes] = run.lower(*given).compile().cost_analysis()["flops"]
  assert flops[1, 1, 4, 1] < 0.3 * flops[1, 1, 1, 1]


def test_evaluation_and_moments_do_not_depend_on_the_micro_batches(spec, groups, reference):
  _, metrics, sums, moments, index = one_step(spec, groups, accumulation=2, with_evaluation=True)
  assert_same(metrics["sums"], reference[1]["sums"])
  assert_same(sums, reference[2])
  by_index = lambda m, i: {int(n): np.asarray(m.sum_logp)[place] for place, n in enumerate(i.reshape(-1)) if n >= 0}
  ours, theirs = by_index(moments, index), by_index(reference[3], reference[4])
  assert ours.keys() == theirs.keys()
  for number, value in theirs.items():
    np.testing.assert_allclose(ours[number], value, rtol=1e-5)


def assert_same(ours, theirs):
  a, b = (summarize(sums, ["helpfulness", "correctness"]) for sums in (ours, theirs))
  for key, value in a.items():
    np.testing.assert_allclose(value, b[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_the_loss_is_the_mean_over_the_pairs_of_the_step(reference, groups):
  _, metrics, sums, _, _ = reference
  assert float(metrics["sums"].pairs) == count_pairs(groups) == float(sums.pairs)
  np.testing.assert_allclose(float(metrics["sums"].loss) / count_pairs(groups), 0.98, atol=0.2)  # -log σ(-0.5)


def test_evaluation_uses_no_noise(reference):
  _, metrics, sums, _, _ = reference
  assert not np.array_equal(np.asarray(sums.alpha), np.asarray(metrics["sums"].alpha))


def test_noise_depends_on_the_step_and_not_on_the_split():
  key = jax.random.key_data(jax.random.key(1, impl="threefry2x32"))
  whole, split = draw_noise(key, jnp.asarray(5), (1, 8, 3, 2)), draw_noise(key, jnp.asarray(5), (4, 2, 3, 2))
  np.testing.assert_array_equal(whole.reshape(-1), split.reshape(-1))
  assert not np.array_equal(whole, draw_noise(key, jnp.asarray(6), (1, 8, 3, 2)))
  assert abs(float(jnp.mean(draw_noise(key, jnp.asarray(0), (1, 500, 4, 2))))) < 0.1


def test_learned_weights_are_the_objective_at_the_state_and_move_by_the_losses(make_spec, groups):
  changes = dict(batch__group_rows=1, batch__row_length=192, objective__alpha="uniform")
  spec = make_spec(**changes, objective__uncertainty_rate=0.25)
  source, grid = (
    find_policy("", dict(spec.model.arch)),
    mesh.make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1]),
  )
  placed = build.param_shardings(spec, abstract_params(source.config, jnp.float32), grid)
  tx, schedule = build_optimizer(spec, 10)
  score_fn = build.build_score_fn(spec.model, source.config, 2, grid)
  batch = mesh.place_batch(collate(groups, accumulation=2, num_pairs=count_pairs(groups)), grid)
  start = init_state(load_policy(source, dtype=jnp.float32, shardings=placed), tx, seed=3, learned_contexts=2)
  start = start._replace(log_variances=jnp.log(jnp.array([1.0, 3.0])))

  def run(spec):
    objective = build_objective(spec.objective, 2, parts=1)
    uncertainty = build_uncertainty(spec.objective, 2, parts=1)
    return jax.jit(make_train_step(score_fn, objective, tx, schedule, uncertainty=uncertainty))(start, batch)

  state, metrics = run(spec)
  fixed, _ = run(make_spec(**changes | dict(objective__alpha="fixed", objective__fixed_alpha=(3.0, 1.0))))
  for mine, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(fixed.params), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-5)  # Adam divides small gradients by themselves
  means = metrics["sums"].losses / metrics["sums"].counted
  expected = start.log_variances - 0.25 * (1 - means / jnp.array([1.0, 3.0]))
  np.testing.assert_allclose(state.log_variances, expected, rtol=1e-5)
  np.testing.assert_array_equal(fixed.log_variances, start.log_variances)
