"""One pair as the model will see it, for human eyes: read back from the laid-out tokens, not from the text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.tokenizer import TokenIds, Tokenizer
from amopo_jax.data.trie import Segment, lay_out
from amopo_jax.types import PAIR_MEMBERS

SCORED = ("⟦", "⟧")
"""What surrounds the scored tokens."""


def show_sample(encoded: EncodedPair, tokenizer: Tokenizer, names: Sequence[str], *, most: int = 400) -> str:
  """Every context of a pair, decoded, its scored tokens between ⟦ and ⟧.

  Args:
    encoded: the pair.
    tokenizer: that made its tokens.
    names: of the contexts.
    most: characters shown of each stretch of text; the middle of a longer one is left out.

  Returns:
    Several lines: per context its prompt with the first response that is laid out, and the other one alone.
  """
  segment = lay_out(encoded, encoded.leaves, 0)
  lines = [
    f"pair {encoded.index} from {encoded.origin}, {encoded.num_cut} tokens cut; scored tokens in {'…'.join(SCORED)}"
  ]
  for k, name in enumerate(names):
    members = [p for context, p in encoded.leaves if context == k]
    lines += [] if members else [f"--- {name}: not laid out, as the objective does not look at it"]
    for p in members:
      tokens, scored = read_leaf(segment, 2 * k + p)
      lines.append(f"--- {name}, {PAIR_MEMBERS[p]}: {len(tokens)} tokens, {int(scored.sum())} scored")
      lines.append(_mark(tokens, scored, tokenizer, most, show_prompt=p == members[0]))
  return "\n".join(lines)


def read_leaf(segment: Segment, slot: int) -> tuple[Int32[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
  """The sequence that ends in a slot, found by following `parent` from its last token to the root.

  Args:
    segment: a trie (or a packed row, its fields one-dimensional).
    slot: one that occurs in it.

  Returns:
    tokens: from the root on.
    scored: which of them the slot scores.
  """
  place = int(np.flatnonzero(segment.slot == slot)[-1])
  path = [place]
  while segment.positions[place] > 0:
    place = int(segment.parent[place])
    path.append(place)
  path = np.asarray(path[::-1])
  return segment.tokens[path], segment.slot[path] == slot


def _mark(
  tokens: TokenIds, scored: Bool[np.ndarray, "T"], tokenizer: Tokenizer, most: int, *, show_prompt: bool
) -> str:
  prompt, response = tokenizer.decode(tokens[~scored]), tokenizer.decode(tokens[scored])
  marked = SCORED[0] + _shorten(response, most) + SCORED[1]
  return _shorten(prompt, most) + marked if show_prompt else marked


def _shorten(text: str, most: int) -> str:
  if len(text) <= most:
    return text
  return f"{text[: most // 2]} […{len(text) - most} characters…] {text[-(most - most // 2) :]}"
