"""Rows of the batch: everything lies in them, whatever they have to hold."""

import numpy as np
import pytest

from benchmarks.batches import lengths_of, make_pairs
from benchmarks.peers.ours import encode, shared_rows


@pytest.mark.parametrize("lengths, pairs, place", [("long", 1, "before"), ("long", 1, "after"), ("issue", 3, "after")])
def test_every_pair_lies_in_the_rows_also_one_that_needs_more_of_them_than_its_tokens_fill(lengths, pairs, place):
  drawn = make_pairs(lengths_of(lengths, pairs), np.zeros((2, pairs, 4, 2)), place=place, words=100, seed=1)
  group = shared_rows(encode(drawn), 0)
  responses = sum(len(response) for _, response in drawn.sequences)
  assert int((np.asarray(group.rows.slot) >= 0).sum()) == responses
  assert group.rows.tokens.size < 1.5 * int((np.asarray(group.rows.subtree_end) > 0).sum())
