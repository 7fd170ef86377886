import json

import pytest

from amopo_jax.data.prompts import read_prompts
from amopo_jax.types import InputError


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_a_prompt_is_a_text_or_a_dialogue_and_needs_no_responses(tmp_path):
  dialogue = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
  ]
  path = write(tmp_path / "p.jsonl", [{"prompt": "sort : b a ."}, {"prompt": dialogue, "responses": []}])
  one, two = read_prompts(path, format="native")
  assert [(m.role, m.content) for m in one.messages] == [("user", "sort : b a .")]
  assert [m.role for m in two.messages] == ["user", "assistant", "user"]
  assert two.origin == f"{path}:2"


def test_records_of_any_format_bring_theirs(tmp_path):
  path = write(tmp_path / "p.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
  assert read_prompts(path, format="preference")[0].messages[0].content == "q"


@pytest.mark.parametrize(
  "row, message",
  [
    ({"question": "?"}, r"p\.jsonl:1: .*'prompt'"),
    ({"prompt": "  "}, r"p\.jsonl:1: the prompt's last message is empty"),
    ({"prompt": [{"role": "assistant", "content": "a"}]}, r"p\.jsonl:1: the prompt ends with role 'assistant'"),
  ],
)
def test_what_is_no_prompt_is_named(tmp_path, row, message):
  with pytest.raises(InputError, match=message):
    read_prompts(write(tmp_path / "p.jsonl", [row]), format="native")
