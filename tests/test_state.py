import jax
import jax.numpy as jnp
import numpy as np
import optax

from amopo_jax.state import abstract_state, digests, init_state

PARAMS = {"w": jnp.ones((2, 3))}


def test_the_state_is_arrays_only_and_starts_at_step_zero():
  state = init_state(PARAMS, optax.adamw(1e-3), seed=7)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
  assert int(state.step) == 0
  assert not np.array_equal(state.rng, init_state(PARAMS, optax.adamw(1e-3), seed=8).rng)


def test_the_abstract_state_has_the_same_shapes_and_types():
  tx = optax.adafactor(1e-3)
  shape = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert shape(abstract_state(PARAMS, tx, seed=0)) == shape(init_state(PARAMS, tx, seed=0))


def test_a_digest_sees_any_change_of_bits_and_no_change_of_type_or_sharding():
  tree = {"a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "b": jnp.ones(4, jnp.bfloat16), "n": jnp.asarray(3)}
  assert digests(tree) == digests(jax.tree.map(lambda x: x + 0, tree))
  assert digests(tree)["['n']"] == 3
  assert digests(tree)["['b']"] == 4 * 0x3F80
  assert digests(tree)["['a']"] != digests(tree | {"a": tree["a"].at[1, 1].add(1e-6)})["['a']"]
