import numpy as np
import pytest

from amopo_jax.data.trie import size
from benchmarks.batches import HEADER, TAIL, ULTRAFEEDBACK, Lengths, lengths_of, make_pairs, sample
from benchmarks.peers.ours import encode


@pytest.mark.parametrize(
  "place, tokens",
  [
    ("after", (40 - TAIL) + 2 * TAIL + 3 + 9 + 2 * (7 + 5)),
    ("before", HEADER + 2 * (40 - HEADER) + 3 + 9 + 2 * (7 + 5)),
  ],
)
def test_what_is_shared_is_what_the_place_says(place, tokens):
  pairs = make_pairs([Lengths(40, 7, 5)], np.zeros((2, 1, 2, 2)), place=place, words=10_000, seed=0, contexts=(3, 9))
  (encoded,) = encode(pairs)
  assert size(encoded, encoded.leaves) == tokens
  assert [len(prompt) for prompt in pairs.prompts[0]] == [43, 49]
  assert [len(response) for response in pairs.responses[0]] == [7, 5]


def test_the_issue_repeats_and_a_batch_of_the_table_has_its_means():
  assert lengths_of("issue", 2) == [Lengths(183, 270, 239)] * 2
  assert lengths_of("ultrafeedback", len(ULTRAFEEDBACK)) == list(ULTRAFEEDBACK)
  for count in (2, 4, 8, 16):
    found = lengths_of("ultrafeedback", count)
    np.testing.assert_allclose(np.mean(found, 0), np.mean(ULTRAFEEDBACK, 0), rtol=0.15)


def test_a_sample_has_one_of_each_share_and_their_means():
  rng = np.random.default_rng(0)
  everything = sorted((Lengths(*map(int, rng.integers(5, 500, 3))) for _ in range(300)), key=sum)
  chosen = sample(everything, 30)
  places = [everything.index(entry) * 30 // 300 for entry in chosen]
  assert places == list(range(30))
  np.testing.assert_allclose(np.mean(chosen, 0), np.mean(everything, 0), rtol=0.05)
