"""docs/data.md keeps its word: the rows it shows read with the adapters, its Python runs, its tables are complete."""

import json
import re
from pathlib import Path

import pytest

from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.convert import FORMATS, convert
from amopo_jax.data.fetch import HUB_SETS
from amopo_jax.data.pairs import RULES
from amopo_jax.data.sources import open_source

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
BLOCKS = dict(re.findall(r"```json (\w+)\n(.*?)```", PAGE, re.DOTALL))


def one_line_each(text: str) -> str:
  """The objects of a block, which it spreads over lines, as JSON Lines."""
  decoder, lines = json.JSONDecoder(), []
  while text := text.strip():
    row, end = decoder.raw_decode(text)
    lines.append(json.dumps(row))
    text = text[end:]
  return "\n".join(lines)


def test_there_is_a_row_of_every_format():
  assert set(BLOCKS) == set(FORMATS)


@pytest.mark.parametrize("format", ADAPTERS)
def test_the_rows_read(tmp_path, format):
  path = tmp_path / "rows.jsonl"
  path.write_text(one_line_each(BLOCKS[format]))
  source = open_source(path, format=format)
  assert all("seven" in source[number].prompt[-1].content for number in range(len(source)))


def test_the_usr_rows_convert(tmp_path):
  path = tmp_path / "rows.json"
  path.write_text(BLOCKS["usr"])
  assert convert(str(path), format="usr", out=tmp_path / "out.jsonl").num_records == 1


def test_the_python_runs():
  (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
  names = {}
  exec(code, names)
  assert names["spec"].names == ("overall", "correctness", "brevity")


@pytest.mark.parametrize("name", [*RULES, *HUB_SETS])
def test_every_rule_and_hub_name_is_on_the_page(name):
  assert f"`{name}`" in PAGE
