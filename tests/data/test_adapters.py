"""Every format, from a file written by this project to records; and what each refuses."""

import json

import pytest

from amopo_jax.data.adapters import ADAPTERS, OVERALL
from amopo_jax.data.records import Message, Record
from amopo_jax.data.sources import open_source
from amopo_jax.types import InputError

FILES = {
  "native": ("native.jsonl", 8),
  "amopo": ("amopo.jsonl", 4),
  "helpsteer2": ("helpsteer2.jsonl", 4),
  "ultrafeedback": ("ultrafeedback.jsonl", 3),
  "preference": ("preference.jsonl", 4),
  "sharegpt": ("sharegpt.json", 4),
}


def read(fixtures, format: str) -> list[Record]:
  source = open_source(fixtures / "records" / FILES[format][0], format=format)
  return [source[number] for number in range(len(source))]


def parse(format: str, *rows: dict) -> Record:
  return ADAPTERS[format].parse(json.loads(json.dumps(rows)), "set.jsonl:9")


def texts(record: Record) -> list[str]:
  return [response.content for response in record.responses]


def test_every_format_has_a_file_here():
  assert set(FILES) == set(ADAPTERS)


@pytest.mark.parametrize("format", FILES)
def test_a_file_of_the_format_reads_whole(fixtures, format):
  records = read(fixtures, format)
  assert len(records) == FILES[format][1]
  assert all(len(set(texts(record))) == len(record.responses) for record in records)


def test_native(fixtures):
  records = read(fixtures, "native")
  assert records[1].chosen == 1
  assert [message.role for message in records[2].prompt] == ["system", "user", "assistant", "user"]
  assert records[3].chosen is None
  assert records[3].responses[2].scores == {"helpfulness": 1, "correctness": 2, "instruction_following": 0}
  assert records[5].responses[0].content == "“Good morning” – said until about noon ☀."


def test_amopo_reads_its_scores_from_strings_and_turns_from_marks(fixtures):
  first, second, *_ = read(fixtures, "amopo")
  assert first.chosen == 0
  assert first.responses[1].scores["helpfulness"] == 1.0
  assert set(first.responses[0].scores) == set(first.responses[1].scores) >= {"instruction_following", "verbosity"}
  assert second.prompt == (
    Message("user", "What is a verb?"),
    Message("assistant", "A word for something one does."),
    Message("user", "And an adverb?"),
  )


def test_helpsteer2_joins_two_rows_and_leaves_the_choice_open(fixtures):
  records = read(fixtures, "helpsteer2")
  assert [record.chosen for record in records] == [None] * 4
  assert [message.role for message in records[1].prompt] == ["user", "assistant", "user"]
  assert records[1].prompt[2].content == "And a soft one?"
  assert texts(records[2]) == ["Mars.", "Saturn, which has rings of ice."]
  assert [response.scores["helpfulness"] for response in records[2].responses] == [3, 4]


def test_ultrafeedback_has_four_aspects_per_completion(fixtures):
  record, *_ = read(fixtures, "ultrafeedback")
  assert len(record.responses) == 4
  assert record.responses[1].scores == {
    "instruction_following": 2,
    "honesty": 2,
    "truthfulness": 1,
    "helpfulness": 1,
  }


def test_preference_takes_explicit_and_implicit_prompts_with_and_without_scores(fixtures):
  explicit, messages, implicit, repeated = read(fixtures, "preference")
  assert explicit.prompt == (Message("user", "Where does honey come from?"),)
  assert [response.scores for response in explicit.responses] == [{OVERALL: 9.0}, {OVERALL: 3.5}]
  assert [message.role for message in messages.prompt] == ["system", "user"]
  assert messages.responses[0].scores == {OVERALL: 8.0}
  assert implicit.prompt == (Message("user", "Where does milk come from?"),)
  assert implicit.responses[0].scores == {}
  assert repeated.prompt == (Message("user", "Where does silk come from?"),)
  assert repeated.responses[1].scores == {"helpfulness": 3, "correctness": 1}


def test_sharegpt_maps_its_roles(fixtures):
  single, system, multi, field = read(fixtures, "sharegpt")
  assert single.prompt == (Message("user", "Hello there"),)
  assert system.prompt[0] == Message("system", "You are a gardener.")
  assert [message.role for message in multi.prompt] == ["user", "assistant", "user"]
  assert field.prompt[0] == Message("system", "You speak like a sailor.")
  assert field.responses[0].scores == {OVERALL: 5.0}


def test_messages_of_other_formats_may_have_fields_that_are_not_read():
  user, answer = {"role": "user", "content": "Why?", "name": "Ann"}, {"role": "assistant", "content": "So.", "id": 1}
  record = parse("preference", {"prompt": [user], "chosen": [answer], "rejected": "No.", "source": "forum"})
  assert record.prompt == (Message("user", "Why?"),)
  human, gpt = {"from": "human", "value": "Why?", "weight": 0}, {"from": "gpt", "value": "So.", "id": 1}
  record = parse("sharegpt", {"conversations": [human], "chosen": gpt, "rejected": {**gpt, "value": "No."}})
  assert texts(record) == ["So.", "No."]


HELPSTEER_ROW = {"prompt": "Why?", "response": "So.", "helpfulness": 4}
COMPLETION = {
  "response": "So.",
  "annotations": {
    aspect: {"Rating": "4"} for aspect in ("instruction_following", "honesty", "truthfulness", "helpfulness")
  },
}
UNRATED = {**COMPLETION, "annotations": {**COMPLETION["annotations"], "honesty": {"Rating": "N/A"}}}
USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}
TWO = [{"content": "a"}, {"content": "b"}]

REFUSALS = {
  "native: no prompt": ("native", [{"responses": TWO}], "no field 'prompt'"),
  "native: mistyped field": ("native", [{"prompt": "x", "responses": TWO, "choosen": 0}], "field 'choosen' in the row"),
  "native: mistyped scores": (
    "native",
    [{"prompt": "x", "responses": [{"content": "a", "score": {"tone": 1}}, *TWO]}],
    "unknown field 'score' in a response; its fields are content, scores (put",
  ),
  "native: field of a message": (
    "native",
    [{"prompt": [{"role": "user", "content": "x", "name": "Ann"}], "responses": TWO}],
    "unknown field 'name' in a message; its fields are role, content (put",
  ),
  "native: text as a message": ("native", [{"prompt": ["x"], "responses": TWO}], "a message is a text"),
  "native: truth value": ("native", [{"prompt": "x", "responses": TWO, "chosen": True}], "'chosen' is True"),
  "native: out of range": ("native", [{"prompt": "x", "responses": TWO, "chosen": 2}], "chosen is 2"),
  "native: text response": ("native", [{"prompt": "x", "responses": ["a", "b"]}], "a response is a text"),
  "native: no content": ("native", [{"prompt": "x", "responses": [{"scores": {}}]}], "no field 'content'"),
  "native: role": ("native", [{"prompt": [{"role": "bot", "content": "x"}], "responses": TWO}], "role 'bot'"),
  "amopo: word": (
    "amopo",
    [{"prompt": "x", "chosen": {"response": "a", "tone": "high"}}],
    "'tone' is 'high'",
  ),
  "amopo: no member": ("amopo", [{"prompt": "x", "chosen": {"response": "a"}}], "no field 'rejected'"),
  "helpsteer2: other prompt": (
    "helpsteer2",
    [HELPSTEER_ROW, {**HELPSTEER_ROW, "prompt": "Who?"}],
    "this row and the next differ in 'prompt'",
  ),
  "helpsteer2: second row": (
    "helpsteer2",
    [HELPSTEER_ROW, {**HELPSTEER_ROW, "helpfulness": None}],
    "(second row): the score 'helpfulness' is null",
  ),
  "helpsteer2: ends with the assistant": (
    "helpsteer2",
    [{**HELPSTEER_ROW, "prompt": "Why?\n<extra_id_1>Assistant\nSo."}] * 2,
    "ends with role 'assistant'",
  ),
  "ultrafeedback: unrated": (
    "ultrafeedback",
    [{"instruction": "x", "completions": [COMPLETION, UNRATED]}],
    "'honesty' is 'N/A'; a score must be a number",
  ),
  "ultrafeedback: one completion": (
    "ultrafeedback",
    [{"instruction": "x", "completions": [COMPLETION]}],
    "1 response(s)",
  ),
  "preference: no prompt": ("preference", [{"chosen": "a", "rejected": "b"}], "no prompt"),
  "preference: other prompts": (
    "preference",
    [{"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "Who?"}, ANSWER]}],
    "prompts in 'prompt', 'chosen' and 'rejected' differ",
  ),
  "preference: contradiction": (
    "preference",
    [{"prompt": "Who?", "chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}],
    "prompts in 'prompt', 'chosen' and 'rejected' differ",
  ),
  "preference: no response": (
    "preference",
    [{"prompt": "x", "chosen": [USER], "rejected": "b"}],
    "'chosen' does not end with a message of the assistant",
  ),
  "preference: half a character": (
    "preference",
    [{"prompt": "x", "chosen": "\ud83d", "rejected": "b"}],
    "'chosen' has the lone surrogate",
  ),
  "preference: empty list": (
    "preference",
    [{"prompt": "x", "chosen": [], "rejected": "b"}],
    "'chosen' does not end",
  ),
  "sharegpt: role": (
    "sharegpt",
    [{"conversations": [{"from": "observation", "value": "x"}], "chosen": GPT, "rejected": GPT}],
    "unknown role 'observation'",
  ),
  "sharegpt: human answer": (
    "sharegpt",
    [{"conversations": [HUMAN], "chosen": HUMAN, "rejected": GPT}],
    "'chosen' is from the user",
  ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_bad_row_is_refused_with_its_place(case):
  format, rows, reason = REFUSALS[case]
  with pytest.raises(InputError) as caught:
    parse(format, *rows)
  assert str(caught.value).startswith("set.jsonl:9")
  assert reason in str(caught.value)
