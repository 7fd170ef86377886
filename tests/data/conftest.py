"""What the tests of encoding and packing share: tokenizer, contexts, records, and pairs of random tokens."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from amopo_jax.data.contexts import Context, ContextSpec
from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.encode import Limits
from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pairs import RULES
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.sources import open_source
from amopo_jax.data.survey import survey
from amopo_jax.data.tokenizer import Tokenizer, load_tokenizer

WORDS = ("the", "river", "boats", "lay", "at", "shore", "mill", "turned", "slowly", "bread", "rises", "heat", "firm")
PACK = PackSpec(row_length=256, rows=4, max_pairs=8, num_contexts=3)
LIMITS = Limits(max_length=200, max_response=100, too_long="cut")


@pytest.fixture(scope="session")
def tokenizer(fixtures):
  return load_tokenizer(fixtures / "tokenizer")


@pytest.fixture(scope="session")
def contexts():
  return ContextSpec(
    (
      Context("overall", None, "Answer well."),
      Context("help", "help", "Focus on {dimension}, level {score}.", 0, 4),
      Context("truth", "truth", "Focus on {dimension}, level {score}.", 0, 4),
    ),
    "before",
  )


@pytest.fixture(scope="session")
def text():
  """Random words."""
  return lambda rng, low, high: " ".join(rng.choice(WORDS, rng.integers(low, high)))


@pytest.fixture(scope="session")
def write_records(text):
  """Writes `count` native records with two scored responses each, the first chosen."""

  def write(path, count, *, seed=0, most_words=40):
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
      for _ in range(count):
        scores = [{name: int(rng.integers(0, 5)) for name in ("help", "truth")} for _ in range(2)]
        responses = [{"content": text(rng, 1, most_words), "scores": score} for score in scores]
        record = {"prompt": text(rng, 1, most_words), "responses": responses, "chosen": 0}
        file.write(json.dumps(record) + "\n")
    return path

  return write


@pytest.fixture(scope="session")
def make_recipe(tokenizer, contexts):
  """A recipe over a native file; keyword arguments replace its parts."""

  def make(path, *, pack=PACK, limits=LIMITS, **parts):
    source = open_source(path, format="native")
    return Recipe(source, RULES[parts.pop("rule", "annotated")], contexts, tokenizer, limits, pack, **parts)

  return make


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, write_records, make_recipe):
  """23 encoded pairs in three contexts, of very different lengths."""
  recipe = make_recipe(write_records(tmp_path_factory.mktemp("data") / "train.jsonl", 23))
  return PairDataset(recipe, survey(recipe).table)


@pytest.fixture(scope="session")
def random_pair():
  """A pair of random tokens whose prompts share prefixes of random lengths; few different tokens, so chance helps."""

  def make(rng, num_contexts, *, longest=12, index=-1):
    stem = rng.integers(0, 3, longest)
    prompts = []
    for _ in range(num_contexts):
      own = rng.integers(0, 3, rng.integers(1, longest))
      shared = rng.integers(0, longest)
      prompts.append(np.concatenate([stem[:shared], own])[: rng.integers(1, longest + 1)].astype(np.int32))
    responses = tuple(rng.integers(0, 3, rng.integers(1, longest + 1)).astype(np.int32) for _ in range(2))
    order = rng.integers(0, 2, num_contexts).astype(bool)
    return EncodedPair(tuple(prompts), responses, order, order.astype(np.float32), index, 0, f"pair {index}")

  return make


@pytest.fixture
def with_template(fixtures):
  def load(template, **changes):
    tokenizer = AutoTokenizer.from_pretrained(fixtures / "tokenizer")
    tokenizer.chat_template = template
    for name, value in changes.items():
      setattr(tokenizer, name, value)
    return Tokenizer(tokenizer, "changed")

  return load
