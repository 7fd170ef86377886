import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from amopo_jax.optim import DEFAULTS, OPTIMIZERS, SCHEDULES, UNUSED, make_optimizer, make_schedule
from amopo_jax.types import InputError
from configs import base

PARAMS = {"norm": {"scale": jnp.ones(4)}, "q": {"kernel": jnp.full((4, 4), 2.0), "bias": jnp.ones(4)}}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_warms_up_to_its_peak_and_ends_where_it_should(name):
  schedule = make_schedule(name, peak=0.5, steps=100, warmup_fraction=0.1)
  values = np.asarray([schedule(step) for step in range(101)])
  np.testing.assert_allclose(values[:11], 0.05 * np.arange(11), rtol=1e-6)
  halfway = {"cosine": 0.25, "linear": 0.25, "constant": 0.5}[name]
  np.testing.assert_allclose(values[55], halfway, rtol=1e-5)
  np.testing.assert_allclose(values[100], 0.5 if name == "constant" else 0.0, atol=1e-7)


def test_no_warm_up_starts_at_the_peak():
  assert float(make_schedule("cosine", peak=0.5, steps=10, warmup_fraction=0.0)(0)) == 0.5


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: make_schedule("step", peak=1.0, steps=1, warmup_fraction=0.0), "schedule: 'step' is unknown"),
    (lambda: make_schedule("cosine", peak=1.0, steps=1, warmup_fraction=1.0), "warmup_fraction: 1.0"),
    (lambda: make_optimizer("sgd", lambda _: 0.1, clip=0.0), "optim.name: 'sgd' is unknown"),
  ],
)
def test_unknown_names_are_refused(call, message):
  with pytest.raises(InputError, match=message):
    call()


@pytest.mark.parametrize("peak", [-1.0, float("nan"), float("inf")])
def test_a_learning_rate_out_of_range_is_refused(peak):
  with pytest.raises(InputError, match=r"config\.optim\.learning_rate: .* is not a finite number of at least 0"):
    make_schedule("cosine", peak=peak, steps=1, warmup_fraction=0.0)


@pytest.mark.parametrize(
  "key, value",
  [
    *[(key, value) for key in ("b1", "b2") for value in (-0.1, 1.0, float("nan"))],
    *[("eps", value) for value in (0.0, -1e-8, float("nan"), float("inf"))],
    *[(key, value) for key in ("clip", "weight_decay") for value in (-1.0, float("nan"), float("inf"))],
  ],
)
def test_numbers_out_of_range_are_refused(key, value):
  with pytest.raises(InputError, match=rf"config\.optim\.{key}: {value} is not .*; "):
    make_optimizer("adamw", lambda _: 0.1, **{"clip": 0.0, key: value})


@pytest.mark.parametrize("name, key", [(name, key) for name, keys in UNUSED.items() for key in keys])
def test_an_optimizer_refuses_what_it_would_ignore(name, key):
  with pytest.raises(InputError, match=rf"config\.optim\.{key}: \S+ has no effect on {name}; leave it at"):
    make_optimizer(name, lambda _: 0.1, clip=0.0, **{key: "bfloat16" if key == "mu_dtype" else 0.5})


def test_unused_keys_have_the_defaults_of_the_base_config():
  optim = base.get_config().optim
  assert {key: optim[key] for key in DEFAULTS} == DEFAULTS
  assert set(UNUSED) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_the_first_moment_may_take_half_the_memory(name):
  tx = make_optimizer(name, lambda _: 0.1, clip=0.0, mu_dtype="bfloat16")
  grads = jax.tree.map(jnp.ones_like, PARAMS)
  updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
  types = {leaf.dtype for leaf in jax.tree.leaves(optax.tree.get(state, "mu"))}
  assert types == {jnp.dtype("bfloat16")}
  if name == "adamw":
    assert {leaf.dtype for leaf in jax.tree.leaves(optax.tree.get(state, "nu"))} == {jnp.dtype("float32")}
  wanted = one_update(name)
  jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-2), updates, wanted)
  assert {leaf.dtype for leaf in jax.tree.leaves(optax.apply_updates(PARAMS, updates))} == {jnp.dtype("float32")}


def test_another_type_of_the_first_moment_is_refused():
  with pytest.raises(InputError, match=r"config\.optim\.mu_dtype: 'float16' is unknown; choose one of"):
    make_optimizer("adamw", lambda _: 0.1, clip=0.0, mu_dtype="float16")


def one_update(name, **kwargs):
  tx = make_optimizer(name, lambda step: jnp.asarray(0.1), **{"clip": 0.0, **kwargs})
  grads = jax.tree.map(jnp.ones_like, PARAMS)
  return tx.update(grads, tx.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_against_the_gradient_by_its_learning_rate(name):
  update = one_update(name)
  np.testing.assert_allclose(update["q"]["kernel"], -0.1, rtol=1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_kernels_by_rate_times_decay_and_spares_norms_and_biases(name):
  with_decay, without = one_update(name, weight_decay=0.5), one_update(name)
  np.testing.assert_allclose(with_decay["q"]["kernel"] - without["q"]["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-5)
  np.testing.assert_array_equal(with_decay["norm"]["scale"], without["norm"]["scale"])
  np.testing.assert_array_equal(with_decay["q"]["bias"], without["q"]["bias"])


def test_clipping_acts_on_the_norm_of_all_gradients():
  tx = make_optimizer("adamw", lambda step: jnp.asarray(1.0), clip=0.5, eps=1e3, b1=0.0, b2=0.0)
  grads = jax.tree.map(lambda x: jnp.full_like(x, 3.0), PARAMS)
  update, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
  norm = 3.0 * np.sqrt(24)
  # With eps far above the gradient, Adam's update is gradient / eps.
  np.testing.assert_allclose(update["q"]["kernel"], -(3.0 * 0.5 / norm) / (0.5 * 3 / norm + 1e3), rtol=1e-4)
