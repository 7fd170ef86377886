"""What a change of numerics or of the wording of a prompt cannot alter unseen.

After a change that is meant: `python -m pytest tests/test_golden.py --co -q` names the tests, and
`AMOPO_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py` writes the files anew; read the difference before
committing.
"""

import json
import os
import pathlib

import numpy as np
import pytest

from amopo_jax.data.contexts import Context, ContextSpec
from amopo_jax.data.encode import Limits, encode_pair
from amopo_jax.data.pairs import RULES
from amopo_jax.data.sample import show_sample
from amopo_jax.data.sources import open_source
from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.writers import read_metrics

GOLDEN = pathlib.Path(__file__).parent / "golden"


def golden(name: str, found: str) -> str:
  """The committed text, after writing it if that was asked for."""
  if os.environ.get("AMOPO_WRITE_GOLDEN"):
    (GOLDEN / name).write_text(found)
  return (GOLDEN / name).read_text()


def test_the_losses_of_a_tiny_run(trained):
  names = ("loss", "grad_norm", "rewards/margins/helpfulness", "alpha/correctness")
  lines = [line for line in read_metrics(str(trained[0])) if "loss" in line]
  found = [{name: round(line[name], 7) for name in names} for line in lines]
  expected = json.loads(golden("losses.json", json.dumps(found, indent=1) + "\n"))
  for ours, theirs in zip(found, expected, strict=True):
    for name, value in theirs.items():
      np.testing.assert_allclose(ours[name], value, rtol=5e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("place", ["before", "after", "system"])
def test_the_texts_of_a_multi_turn_pair_in_every_context(fixtures, place):
  contexts = ContextSpec(
    (Context("overall", None, "overall"), Context("helpfulness", "helpfulness", "rubric", 0, 4)), place
  )
  source = open_source(fixtures / "records" / "native.jsonl", format="native")
  record = next(source[number] for number in range(len(source)) if len(source[number].prompt) > 2)
  tokenizer = load_tokenizer(fixtures / "tokenizer")
  pair = RULES["derived"](record, contexts.ranges)[0]
  encoded = encode_pair(pair, contexts, tokenizer, Limits(max_length=1024, max_response=512, too_long="error"))
  text = show_sample(encoded, tokenizer, contexts.names, most=10_000).split("\n", 1)[1] + "\n"
  assert text == golden(f"sample-{place}.txt", text)
