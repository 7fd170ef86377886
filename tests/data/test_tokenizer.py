import pickle
import time

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from amopo_jax.data import tokenizer as module
from amopo_jax.data.records import Message
from amopo_jax.data.tokenizer import Tokenizer, is_read_alike, load_tokenizer
from amopo_jax.types import InputError

DIALOGUE = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why?"))

TRIMMING = (
  "{{ '<|endoftext|>' }}{% for m in messages %}"
  "{{ '<|im_start|>' + m.role + '\n\n' + (m.content | trim) + '<|im_end|>' }}{% endfor %}"
)
THINKING = (
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
  "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' + m.content.lstrip('\n') }}"
  "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
)


def test_prompt_ends_where_the_response_begins(tokenizer):
  assert tokenizer.prompt_text(DIALOGUE) == (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
  )


def test_prompt_and_response_are_the_dialogue_as_the_template_writes_it(tokenizer):
  turns = [{"role": m.role, "content": m.content} for m in (*DIALOGUE, Message("assistant", "Because of it."))]
  hf = AutoTokenizer.from_pretrained(tokenizer.name)
  whole = hf.apply_chat_template(turns, tokenize=True, return_dict=False)
  (prompt,) = tokenizer.encode([tokenizer.prompt_text(DIALOGUE)])
  (response,) = tokenizer.encode_responses(["Because of it."])
  joined = np.concatenate([prompt, response]).tolist()
  assert joined == whole[: len(joined)]
  assert tokenizer.decode(np.asarray(whole[len(joined) :], np.int32)) == "\n"


def test_response_ends_with_the_end_of_turn(tokenizer):
  (response,) = tokenizer.encode_responses(["Yes"])
  assert tokenizer.decode(response) == "Yes<|im_end|>"
  assert tokenizer.decode(tokenizer.end) == "<|im_end|>"


def test_nothing_is_added_that_the_template_does_not_write(with_template):
  tokenizer = with_template(TRIMMING, bos_token="<|endoftext|>", add_bos_token=True)
  (prompt,) = tokenizer.encode([tokenizer.prompt_text(DIALOGUE)])
  bos = tokenizer.encode(["<|endoftext|>"])[0][0]
  assert (prompt == bos).sum() == 1


def test_white_space_is_stripped_where_the_template_strips_it(tokenizer, with_template):
  content = "\n  Yes. \n"
  decoded = lambda t: t.decode(t.encode_responses([content])[0])
  assert decoded(tokenizer) == content + "<|im_end|>"
  assert decoded(with_template(TRIMMING)) == "Yes.<|im_end|>"
  assert decoded(with_template(THINKING)) == "  Yes. \n<|im_end|>"


def test_think_block_of_the_template_belongs_to_the_prompt(with_template):
  prompt = with_template(THINKING).prompt_text(DIALOGUE)
  assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
  assert prompt.count("<think>") == 1


def test_padding_token_equal_to_the_end_of_turn_changes_nothing(tokenizer, with_template):
  same = with_template(AutoTokenizer.from_pretrained(tokenizer.name).chat_template, pad_token="<|im_end|>")
  for one, two in zip(tokenizer.encode_responses(["a", "b c"]), same.encode_responses(["a", "b c"]), strict=True):
    np.testing.assert_array_equal(one, two)


def test_placeholder_in_a_message_does_no_harm(tokenizer):
  dialogue = (Message("user", "What is @@response@@?"),)
  assert tokenizer.prompt_text(dialogue).endswith("What is @@response@@?<|im_end|>\n<|im_start|>assistant\n")


def test_turn_without_a_special_token_ends_with_eos(with_template):
  plain = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
  tokenizer = with_template(plain)
  assert tokenizer.decode(tokenizer.end) == "\n<|im_end|>"
  with pytest.raises(InputError, match="no end-of-turn token"):
    with_template(plain, eos_token=None)


@pytest.mark.parametrize("by_normalizer", [False, True])
def test_a_space_that_sentencepiece_adds_is_not_there_twice(by_normalizer):
  words = {
    "<unk>": 0,
    "</s>": 1,
    "\u2581": 2,
    "\u2581Hi": 3,
    "Hi": 4,
    "[/INST]": 5,
    "x": 6,
    "\u2581x": 7,
    "\u2581y": 8,
    "y": 9,
  }
  backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
  if by_normalizer:
    pieces = [tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")]
    backend.normalizer = tokenizers.normalizers.Sequence(pieces)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("\u2581", "merged_with_next")
  else:
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
  backend.add_special_tokens(["</s>", "[/INST]"])
  hf = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
  hf.chat_template = (
    "{% for m in messages %}{{ m.content + '[/INST]' if m.role == 'user' else ' ' + m.content + '</s>' }}{% endfor %}"
  )
  tokenizer = Tokenizer(hf, "pieces")
  prompt = tokenizer.prompt_text([Message("user", "Hi")])
  assert prompt == "Hi[/INST]"
  apart = [*tokenizer.encode([prompt])[0], *tokenizer.encode_responses(["Hi"])[0]]
  assert apart == [3, 5, 3, 1]
  if not by_normalizer:  # which writes a second one behind a special token, when it sees the whole
    assert apart == tokenizer.encode(["Hi[/INST] Hi</s>"])[0].tolist()


def test_a_policy_stops_at_the_end_of_a_turn_or_of_a_text(tokenizer, with_template):
  turn, text = (int(tokenizer.encode([name])[0][0]) for name in ("<|im_end|>", "<|endoftext|>"))
  assert with_template(TRIMMING, eos_token="<|endoftext|>").end_tokens([turn, 7]) == [turn, text, 7]
  assert with_template(TRIMMING, eos_token="<|im_end|>").end_tokens(None) == [turn]


def test_tokenizer_without_a_chat_template_is_refused(tmp_path, fixtures):
  tokenizer = AutoTokenizer.from_pretrained(fixtures / "tokenizer")
  tokenizer.chat_template = None
  tokenizer.save_pretrained(tmp_path)
  with pytest.raises(InputError, match="has no chat template; add"):
    load_tokenizer(tmp_path)


def test_one_of_the_hub_is_what_its_files_say_in_a_directory(fixtures, monkeypatch):
  asked = []
  folder = str(fixtures / "tokenizer")
  monkeypatch.setattr(module, "snapshot_download", lambda name, **options: asked.append(name) or folder)
  found = load_tokenizer("org/name")
  assert (asked, found.name) == (["org/name"], "org/name")
  assert found.fingerprint == load_tokenizer(folder).fingerprint


@pytest.mark.parametrize("name", ["no/such_tokenizer", "/no/such/directory"])
def test_missing_tokenizer_is_one_line_within_seconds(name, monkeypatch):
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
  began = time.monotonic()
  with pytest.raises(InputError, match=r"cannot be loaded \(no such directory") as caught:
    load_tokenizer(name)
  assert time.monotonic() - began < 20
  assert "\n" not in str(caught.value)


def test_a_text_may_have_more_tokens_than_bytes_but_not_than_its_normal_form_has(fixtures):
  loaded = AutoTokenizer.from_pretrained(fixtures / "tokenizer")
  loaded.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  tokenizer = Tokenizer(loaded, "normalising")
  note = "\U0001d160" * 20  # a musical symbol that NFC writes as three
  assert tokenizer.most_tokens(note) == 3 * len(note.encode())
  assert tokenizer.most_tokens("plain") == 5


def test_a_full_disk_is_an_os_error(tokenizer, monkeypatch, tmp_path):
  def fail(directory):
    raise Exception("No space left on device (os error 28)")  # as the tokenizers library does

  monkeypatch.setattr(tokenizer._tokenizer, "save_pretrained", fail)
  with pytest.raises(OSError, match="No space left on device") as caught:
    tokenizer.save(tmp_path)
  assert caught.value.errno == 28


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
  tokenizer.save(tmp_path / "copy")
  assert load_tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint
  assert pickle.loads(pickle.dumps(tokenizer)).fingerprint == tokenizer.fingerprint


def test_fingerprint_knows_template_special_tokens_and_vocabulary(tokenizer, with_template, fixtures):
  template = AutoTokenizer.from_pretrained(fixtures / "tokenizer").chat_template
  larger = AutoTokenizer.from_pretrained(fixtures / "tokenizer")
  larger.add_tokens(["<new>"])
  others = [with_template(THINKING), with_template(template, pad_token="<|im_end|>"), Tokenizer(larger, "larger")]
  prints = {tokenizer.fingerprint, *(other.fingerprint for other in others)}
  assert len(prints) == 4
  assert with_template(template).fingerprint == tokenizer.fingerprint


def test_vocab_size_covers_every_id(tokenizer):
  assert tokenizer.vocab_size == 512
  assert max(ids.max() for ids in tokenizer.encode(["<|im_end|>", "é🙂 the"])) < 512


@given(text=st.text(max_size=40), count=st.integers(0, 50))
def test_without_start_keeps_an_end_of_the_text(tokenizer, text, count):
  rest = tokenizer.without_start(text, count)
  assert text.endswith(rest)
  (ids,) = tokenizer.encode([text])
  assert (rest == "") == (count >= len(ids))
  if count == 0:
    assert rest == text


def test_left_over_truncation_of_the_file_is_ignored(fixtures):
  hf = AutoTokenizer.from_pretrained(fixtures / "tokenizer")
  hf.backend_tokenizer.enable_truncation(3)
  hf.backend_tokenizer.enable_padding(length=8)
  (ids,) = Tokenizer(hf, "truncating").encode(["the river was quiet and the boats lay at the shore"])
  assert len(ids) > 8


def test_a_config_beside_it_does_not_change_the_tokenizer(fixtures, tmp_path):
  alone = load_tokenizer(fixtures / "tokenizer")
  alone.save(tmp_path)
  assert load_tokenizer(tmp_path).fingerprint == alone.fingerprint
  (tmp_path / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
  assert load_tokenizer(tmp_path).fingerprint == alone.fingerprint
  words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "<|im_end|>": 1}, unk_token="<unk>"))
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=words, eos_token="<|im_end|>", chat_template=THINKING
  ).save_pretrained(tmp_path)
  assert not is_read_alike(tmp_path)


def test_variables_reach_the_chat_template_and_unused_ones_are_refused(fixtures, tmp_path):
  tokenizer = AutoTokenizer.from_pretrained(fixtures / "tokenizer")
  tokenizer.chat_template = "{% if loud %}LOUD {% endif %}" + THINKING
  tokenizer.save_pretrained(tmp_path)
  assert load_tokenizer(tmp_path, {"loud": True}).prompt_text(DIALOGUE).startswith("LOUD <|im_start|>")
  assert load_tokenizer(tmp_path).prompt_text(DIALOGUE).startswith("<|im_start|>")
  for key in ("enable_thinking", "messages"):
    with pytest.raises(InputError, match=f"chat template takes no '{key}'; leave that out"):
      load_tokenizer(tmp_path, {key: False})
