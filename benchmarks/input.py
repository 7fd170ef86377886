"""Speed and padding of the input pipeline: survey, encoding, tries and packing, on one core.

    python -m benchmarks.input --data=train.jsonl --format=preference --tokenizer=DIR [--json=FILE]

Encodes every pair in four contexts (one general, three with a rubric and a score) and packs them with the defaults
of a run. Where the data have fewer than three dimensions, texts as long take the places of the missing rubrics.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core

from amopo_jax.data.contexts import PLACES, Context, ContextSpec, instruction
from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.encode import Limits
from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import PackSpec, pack_all, padding
from amopo_jax.data.pairs import RULES
from amopo_jax.data.pipeline import LOOKAHEAD
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.sources import open_source
from amopo_jax.data.survey import survey
from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.data.trie import size
from benchmarks import report

RUBRICS = ("helpfulness", "correctness", "instruction following")


@dataclasses.dataclass(frozen=True)
class Report:
  """Tokens are per pair, seconds are of this process's processor time.

  With `mask_ties` the trie holds no dropped term; supervised, the chosen response in every context all the same.
  """

  pairs: int
  row_length: int
  rows: int
  place: str
  tokens_padded: float
  tokens_unshared: float
  tokens_trie: float
  tokens_mask_ties: float
  tokens_mask_ties_supervised: float
  tokens_scored: float
  padding: float
  padding_without_the_last_groups: float
  pairs_per_group: float
  most_pairs_in_a_group: int
  survey_seconds: float
  encode_seconds: float
  pack_seconds: float


def main() -> None:
  args = arguments()
  recipe = make_recipe(args)
  began = time.process_time()
  counts = survey(recipe)
  surveyed = time.process_time()
  dataset = PairDataset(recipe, counts.table)
  encoded = [dataset[index] for index in range(len(dataset))]
  tokenised = time.process_time()
  groups = pack_all(encoded, recipe.pack, lookahead=args.lookahead)
  packed = time.process_time()
  found = Report(
    pairs=len(encoded),
    row_length=args.row_length,
    rows=args.rows,
    place=args.place,
    tokens_padded=sum(2 * len(pair.prompts) * pair.longest for pair in encoded) / len(encoded),
    tokens_unshared=sum(size(pair, [leaf]) for pair in encoded for leaf in pair.leaves) / len(encoded),
    tokens_trie=sum(size(pair, pair.leaves) for pair in encoded) / len(encoded),
    tokens_mask_ties=_laid_out(encoded, Layout("agreeing", "agreeing")),
    tokens_mask_ties_supervised=_laid_out(encoded, Layout(rejected="agreeing")),
    tokens_scored=sum(len(pair.prompts) * sum(map(len, pair.responses)) for pair in encoded) / len(encoded),
    padding=padding(groups),
    padding_without_the_last_groups=padding(groups[:-4] or groups),
    pairs_per_group=len(encoded) / len(groups),
    most_pairs_in_a_group=max(int((group.index >= 0).sum()) for group in groups),
    survey_seconds=surveyed - began,
    encode_seconds=tokenised - surveyed,
    pack_seconds=packed - tokenised,
  )
  show(found)
  if args.json:
    report.write(args.json, dataclasses.asdict(found))


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="a file of records, or a hub name")
  parser.add_argument("--format", default="native", help="adapter")
  parser.add_argument("--tokenizer", required=True, help="directory or hub name")
  parser.add_argument("--place", default="before", choices=PLACES, help="of the instruction")
  parser.add_argument("--rule", default="derived", choices=RULES, help="that chooses the pairs of a record")
  parser.add_argument("--low", type=float, default=0, help="lowest score of the data")
  parser.add_argument("--high", type=float, default=10, help="highest score of the data")
  parser.add_argument("--max-length", type=int, default=2048, help="tokens of a prompt and a response")
  parser.add_argument("--row-length", type=int, default=4096)
  parser.add_argument("--rows", type=int, default=8)
  parser.add_argument("--max-pairs", type=int, default=24, help="places in a group")
  parser.add_argument("--lookahead", type=int, default=LOOKAHEAD)
  parser.add_argument("--json", metavar="FILE")
  return parser.parse_args()


def make_recipe(args: argparse.Namespace) -> Recipe:
  source = open_source(args.data, format=args.format, on_error="skip")
  scores = list(source[0].responses[0].scores)
  if not scores:
    raise SystemExit(f"{args.data}: its first response has no score")
  dimensions = scores[:3]
  rubrics = (Context(name, name, "rubric", args.low, args.high) for name in dimensions)
  # data with fewer dimensions: further contexts of the same length, without a score
  others = (Context(name, None, _rubric_text(name)) for name in RUBRICS[len(dimensions) :])
  contexts = ContextSpec((Context("general", None, "overall"), *rubrics, *others), args.place)
  limits = Limits(args.max_length, args.max_length // 2, "cut")
  pack = PackSpec(args.row_length, args.rows, args.max_pairs, len(contexts.contexts))
  return Recipe(source, RULES[args.rule], contexts, load_tokenizer(args.tokenizer), limits, pack)


def _rubric_text(name: str) -> str:
  return instruction(Context(name, name, "rubric", 1, 5), {name: 4})


def _laid_out(encoded: Sequence[EncodedPair], layout: Layout) -> float:
  return sum(size(pair, layout(pair).leaves) for pair in encoded) / len(encoded)


def show(found: Report) -> None:
  for name, value in dataclasses.asdict(found).items():
    print(f"{name:36} {value if isinstance(value, str) else round(value, 4)}")


if __name__ == "__main__":
  main()
