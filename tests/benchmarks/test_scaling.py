import math

import numpy as np
import pytest

from benchmarks.batches import make_pairs
from benchmarks.scaling import INSTRUCTION, PAIR, row_of, slope


def test_slopes_of_powers():
  sizes = [1, 2, 4, 8]
  assert slope(sizes, [3 * size for size in sizes]) == pytest.approx(1)
  assert slope(sizes, [size**2 for size in sizes]) == pytest.approx(2)
  assert math.isnan(slope([1], [1]))


@pytest.mark.parametrize("contexts", [1, 2, 4, 8])
def test_a_row_is_as_long_as_the_trie_of_its_pairs(contexts):
  drawn = make_pairs(
    [PAIR], np.zeros((1, contexts)), place="after", words=1 << 30, seed=0, contexts=(INSTRUCTION,) * contexts
  )
  sequences = [np.concatenate([prompt, response]) for prompt in drawn.prompts[0] for response in drawn.responses[0]]
  assert len({tuple(tokens[:end]) for tokens in sequences for end in range(1, len(tokens) + 1)}) == row_of(contexts)
