"""The pairs that every contender trains on: prompts in K contexts and two responses, of token ids drawn at random.

What costs time is lengths and what is shared, so the ids are noise of a seed; where a prompt begins as another does
is what the place of the instruction says:

    after     [header question][context k][tail]     the question is shared by all 2K sequences
    before    [header][context k][question tail]     the header alone is shared, the rest by the two of a context
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from amopo_jax.data.contexts import Context, ContextSpec
from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.encode import Limits
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.sources import open_source
from amopo_jax.data.survey import survey
from amopo_jax.data.tokenizer import load_tokenizer
from benchmarks.peers.pairs import Pairs

CONTEXTS = (27, 148, 147, 149)
"""Tokens of the released instructions: one general, three with a rubric (Qwen2.5 tokenizer)."""

HEADER, TAIL = 24, 5
"""Tokens of Qwen2.5's chat template before and behind the user's text; part of the question's length."""


class Lengths(NamedTuple):
  """Tokens of one pair.

  Attributes:
    question: the user's text with the chat template around it.
    chosen, rejected: the responses, end of turn included.
  """

  question: int
  chosen: int
  rejected: int


END = np.int32(0)
"""The last token of every response, the shapes' `eos_token_id`: some peers add it where it is missing."""

_TABLE = """
  38,45,9 37,87,23 106,33,25 51,130,14 48,132,45 74,119,55 159,2,109 206,65,7 221,62,29 128,182,28 319,5,45
  36,305,61 246,168,4 363,28,52 74,187,225 148,247,95 56,282,180 37,327,197 338,2,257 39,451,121 455,4,187
  50,305,325 70,228,392 436,28,271 358,210,203 43,327,419 347,24,470 453,292,116 395,87,428 50,406,499
  659,201,120 43,557,418 68,555,458 90,570,459 128,569,466 46,658,587 825,362,189 54,811,532 161,941,540
  128,833,877
"""
ULTRAFEEDBACK = tuple(Lengths(*map(int, triple.split(","))) for triple in _TABLE.split())
"""`sample(read_lengths(…), 40)` of 994 UltraFeedback pairs with the Qwen2.5 tokenizer: question, chosen, rejected."""


def lengths_of(name: str, pairs: int) -> list[Lengths]:
  """The lengths by name.

  Args:
    name: `issue` is one pair of UltraFeedback as a typical one; `long` a question of 2,048 tokens; `ultrafeedback`
      is a `sample` of the table above; `tiny` is for tests.
    pairs: how many; the first three repeat theirs.
  """
  single = {"tiny": Lengths(40, 7, 5), "issue": Lengths(183, 270, 239), "long": Lengths(2048, 256, 256)}
  return [single[name]] * pairs if name in single else sample(ULTRAFEEDBACK, pairs)


LENGTHS = ("tiny", "issue", "long", "ultrafeedback")


def read_lengths(path: Path, tokenizer: str) -> list[Lengths]:
  """The lengths of a file of {"prompt", "chosen", "rejected"} texts, sorted by the tokens of the pair."""
  recipe = Recipe(
    source=open_source(str(path), format="preference", on_error="skip"),
    rule="derived",
    contexts=ContextSpec((Context("plain", None, "plain"),), "before"),
    tokenizer=load_tokenizer(tokenizer),
    limits=Limits(2048, 1024, "cut"),
    pack=PackSpec(row_length=2048, rows=2, max_pairs=1, num_contexts=1),
    on_error="skip",
  )
  dataset = PairDataset(recipe, survey(recipe).table)
  encoded = (dataset[number] for number in range(len(dataset)))
  return sorted((Lengths(len(pair.prompts[0]), *map(len, pair.responses)) for pair in encoded), key=sum)


def sample(lengths: Sequence[Lengths], count: int, longest: int = 0) -> list[Lengths]:
  """Pairs that stand for a sorted list: of 1,000 draws the one whose means are nearest to those of the whole list.

  Args:
    lengths: the list.
    count: pairs; a draw takes one of each of so many equal shares of the list.
    longest: leaves out pairs whose longest row, in the longest of CONTEXTS, has more tokens; 0: none.
  """
  rng = np.random.default_rng(0)
  padded = lambda pair: pair.question + max(CONTEXTS) + max(pair.chosen, pair.rejected)
  table = np.asarray([pair for pair in lengths if not longest or padded(pair) <= longest])
  edges = np.linspace(0, len(table), count + 1).astype(int)
  draws = np.stack([table[rng.integers(edges[:-1], edges[1:])] for _ in range(1000)])
  error = np.abs(draws.mean(1) / np.mean(lengths, axis=0) - 1).sum(1)
  return [Lengths(*(int(size) for size in triple)) for triple in draws[np.argmin(error)]]


def make_pairs(
  lengths: Sequence[Lengths],
  noise: np.ndarray,
  *,
  place: str,
  words: int,
  seed: int,
  contexts: Sequence[int] = CONTEXTS,
) -> Pairs:
  """Draws the tokens.

  Args:
    lengths: of each pair.
    noise: see `Pairs`.
    place: of PLACES.
    words: entries of the vocabulary.
    seed: of the token ids.
    contexts: tokens of each context's instruction.
  """
  draw = lambda count: rng.integers(0, words, count, dtype=np.int32)
  rng = np.random.default_rng(seed)
  header, tail, instructions = draw(HEADER), draw(TAIL), [draw(count) for count in contexts]
  prompts, responses = [], []
  for pair in lengths:
    text = draw(max(pair.question - HEADER - TAIL, 1))
    orders = {
      "after": lambda c, text=text: [header, text, c, tail],
      "before": lambda c, text=text: [header, c, text, tail],
    }
    prompts.append([np.concatenate(orders[place](instruction)) for instruction in instructions])
    responses.append([np.append(draw(count - 1), END) for count in (pair.chosen, pair.rejected)])
  return Pairs(prompts, responses, noise)
