"""The benchmark's rows and shares, against the plain mask."""

import numpy as np
import pytest

from benchmarks.attention import CONTEXTS, QUESTION, RESPONSES, same_pairs, shares


@pytest.mark.parametrize("place, sharing", [("after", QUESTION), ("before", 4 * QUESTION)])
def test_a_row_holds_whole_pairs_whose_responses_see_their_own_path(place, sharing):
  tokens = sharing + sum(CONTEXTS) + 4 * sum(RESPONSES)
  end = same_pairs(2 * tokens + 7, place)[0]
  assert (end == 0).sum() == 7
  assert end[0] == (tokens if place == "after" else QUESTION + CONTEXTS[0] + sum(RESPONSES))
  i = np.arange(len(end))
  seen = ((i[None] <= i[:, None]) & (i[:, None] < end[None])).sum(1)
  paths = {QUESTION + context + response for context in CONTEXTS for response in RESPONSES}
  assert paths <= set(seen.tolist())
  assert seen.max() == max(paths)


def test_shares_are_those_of_the_plain_mask():
  end = same_pairs(3000, "after")
  i = np.arange(3000)
  visible = (i[None] <= i[:, None]) & (i[:, None] < np.maximum(end, i + 1))
  found = shares(end)
  assert found["seen"] == pytest.approx(visible.mean())
  filled = np.pad(visible, (0, -3000 % 128)).reshape(24, 128, 24, 128)
  filled[-1, np.arange(3000 % 128, 128), -1, np.arange(3000 % 128, 128)] = True
  assert found["blocks 128"] == pytest.approx(filled.any(axis=(1, 3)).sum() * 128**2 / 3000**2)
