"""encoded.py: what prompts share, and which sequences there are."""

import dataclasses

import numpy as np

from amopo_jax.data.encoded import EncodedPair


def pair(*prompts, responses=((1, 2, 3), (4,)), **more):
  tokens = lambda numbers: np.asarray(numbers, np.int32)
  order = np.ones(len(prompts), bool)
  return EncodedPair(
    tuple(map(tokens, prompts)), tuple(map(tokens, responses)), order, order.astype(np.float32), 0, 0, "f:1", **more
  )


def test_contexts_stand_in_lexicographic_order_with_the_tokens_they_share():
  assert pair([1, 2, 9], [1, 2], [1, 2, 3, 4], [7]).branching == ((1, 2, 0, 3), (0, 2, 2, 0))


def test_all_sequences_are_laid_out_unless_it_is_said_otherwise():
  whole = pair([1], [2])
  assert whole.leaves == ((0, 0), (0, 1), (1, 0), (1, 1))
  part = dataclasses.replace(whole, laid_out=np.asarray([[False, True], [True, False]]))
  assert part.leaves == ((0, 1), (1, 0))


def test_the_longest_is_that_of_what_is_laid_out():
  whole = pair([1] * 5, [2] * 9)
  assert whole.longest == 12
  assert dataclasses.replace(whole, laid_out=np.asarray([[True, True], [False, True]])).longest == 10


def test_the_largest_has_the_longest_response_twice():
  found = pair([1], others=(np.arange(8, dtype=np.int32),)).largest
  assert [len(response) for response in found.responses] == [8, 8]
  assert found.others == ()
