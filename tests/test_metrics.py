import jax
import jax.numpy as jnp
import numpy as np

from amopo_jax import metrics
from amopo_jax.objective import make_amopo, uniform
from amopo_jax.types import PairInfo, ResponseMoments

RNG = np.random.default_rng(0)


def make(pairs, real):
  length = RNG.integers(1, 9, (pairs, 3, 2)).astype(np.float32) * (np.arange(pairs) < real)[:, None, None]
  p = RNG.uniform(0.1, 0.9, (pairs, 3, 2)).astype(np.float32)
  moments = ResponseMoments(*(jnp.asarray(x) for x in (length, length * np.log(p), length * p, length * p**2)))
  weight = (np.arange(pairs) < real) / max(real, 1)
  info = PairInfo(
    jnp.asarray(RNG.random((pairs, 3)) < 0.6),
    jnp.asarray(RNG.uniform(-1, 1, (pairs, 3)), jnp.float32),
    jnp.asarray(weight, jnp.float32),
  )
  return moments, info


def sums_of(moments, info):
  objective = make_amopo(alpha_fn=uniform, beta=2.0, target_margin=0.5)
  loss, aux = objective(moments, jnp.zeros((*info.is_ordered.shape, 2)), info)
  return loss, aux, metrics.metric_sums(loss, aux, moments, info)


def test_means_are_those_of_numpy_over_the_real_pairs():
  moments, info = make(6, 4)
  loss, aux, sums = sums_of(moments, info)
  out = metrics.summarize(sums, ["a", "b", "c"])
  real = slice(0, 4)
  rewards, ordered = np.asarray(aux.rewards)[real], np.asarray(info.is_ordered)[real]
  margins = rewards[..., 0] - rewards[..., 1]
  np.testing.assert_allclose(out["loss"], loss, rtol=1e-6)
  np.testing.assert_allclose(out["rewards/margins/b"], margins[:, 1].mean(), rtol=1e-5)
  np.testing.assert_allclose(out["rewards/chosen"], rewards[..., 0].mean(), rtol=1e-5)
  accuracy = (margins[:, 2] > 0)[ordered[:, 2]].mean()
  np.testing.assert_allclose(out["rewards/accuracies/c"], accuracy, rtol=1e-6)
  np.testing.assert_allclose(out["loss/b"], np.log1p(np.exp(0.5 - margins[:, 1])).mean(), rtol=1e-5)
  np.testing.assert_allclose(out["alpha/a"], 1 / 3, rtol=1e-6)
  np.testing.assert_allclose(out["logps/rejected/a"], rewards[:, 0, 1].mean() / 2.0, rtol=1e-5)
  assert out["num_pairs"] == 4
  assert [out[f"num_ordered/{name}"] for name in "abc"] == ordered.sum(0).tolist()
  assert out["num_tokens"] == np.asarray(moments.length).sum()
  assert out["num_responses"] == (np.asarray(moments.length) > 0).sum()


def test_sums_of_parts_add_up_to_those_of_the_whole():
  moments, info = make(6, 6)
  cut = lambda part: jax.tree.map(lambda x: x[part], (moments, info))
  parts = [sums_of(*cut(part))[2] for part in (slice(0, 2), slice(2, 6))]
  whole = sums_of(moments, info)[2]
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), metrics.add(*parts), whole)


def test_no_pair_gives_nan_and_no_warning():
  out = metrics.summarize(sums_of(*make(3, 0))[2], ["a", "b", "c"], prefix="eval_")
  assert np.isnan(out["eval_loss"])
  assert np.isnan(out["eval_rewards/accuracies"])
  assert out["eval_num_pairs"] == 0
  assert not metrics.finite(out, ["eval_loss"])


def test_a_context_that_orders_no_pair_has_no_accuracy_and_leaves_the_mean_alone():
  moments, info = make(4, 4)
  ordered = np.ones((4, 3), bool)
  ordered[:, 1] = False
  out = metrics.summarize(sums_of(moments, info._replace(is_ordered=jnp.asarray(ordered)))[2], ["a", "b", "c"])
  assert np.isnan(out["rewards/accuracies/b"])
  np.testing.assert_allclose(
    out["rewards/accuracies"], (out["rewards/accuracies/a"] + out["rewards/accuracies/c"]) / 2, rtol=1e-6
  )


def test_pairs_of_which_one_response_is_scored_are_not_compared():
  moments, info = make(5, 5)
  alone = jax.tree.map(lambda x: x * jnp.asarray([[[1.0, 0.0]]]), moments)
  whole, out = (metrics.summarize(sums_of(one, info)[2], ["a", "b", "c"]) for one in (moments, alone))
  assert (out["rewards/chosen"], out["logps/chosen/b"]) == (whole["rewards/chosen"], whole["logps/chosen/b"])
  assert all(np.isnan(out[f"rewards/{name}"]) for name in ("rejected", "margins", "margins/a", "accuracies/c"))
  assert [out[f"num_ordered/{name}"] for name in "abc"] == [0, 0, 0]
  assert out["num_pairs"] == 5
  half = metrics.summarize(metrics.add(sums_of(moments, info)[2], sums_of(alone, info)[2]), ["a", "b", "c"])
  np.testing.assert_allclose(half["rewards/margins/a"], whole["rewards/margins/a"], rtol=1e-6)


def test_names_are_known_before_there_is_anything_to_summarize():
  _, _, sums = sums_of(*make(6, 4))
  contexts = ["a", "b", "c"]
  names = metrics.summarize(sums, contexts, prefix="eval_")
  counts = {
    "eval_num_pairs",
    "eval_num_responses",
    "eval_num_tokens",
    "eval_num_ordered/a",
    "eval_num_ordered/b",
    "eval_num_ordered/c",
  }
  assert counts < set(names)
  assert metrics.metric_names(contexts, "eval_") == tuple(name for name in names if name not in counts)
