"""What the chat template decides; white space and think blocks as tokens: test_tokenizer.py."""

import pytest

from amopo_jax.data.records import Message
from amopo_jax.types import InputError

DIALOGUE = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why?"))

WITHOUT_SYSTEM = (
  "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
  "{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
)
LATE_SYSTEM = (
  "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif %}"
  "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' }}"
  "{% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}{{ m.content + '[/INST]' }}"
  "{% elif m.role == 'assistant' %}{{ ' ' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
)
REASONING = (
  "{% for m in messages %}{% set parts = m.content.split('</think>') %}"
  "{{ m.role + ': ' + ('<think>' + parts[0].replace('<think>', '') + '</think>' if parts | length > 1 else '') }}"
  "{{ ' ' + parts[-1] + '<|im_end|>' }}{% endfor %}"
)
DATED = "{% for m in messages %}{{ strftime_now('%Y-%m-%d') + m.content + '<|im_end|>' }}{% endfor %}"


def test_refusal_of_the_template_is_an_input_error(with_template):
  with pytest.raises(InputError, match="chat template of changed: System role not supported; "):
    with_template(WITHOUT_SYSTEM).prompt_text(DIALOGUE)


def test_template_that_drops_the_response_is_refused(with_template):
  with pytest.raises(InputError, match="does not write the assistant's text"):
    with_template("{{ messages[0].content }}")


def test_a_template_that_leaves_the_system_message_out_is_refused_where_there_is_one(with_template):
  tokenizer = with_template(LATE_SYSTEM)
  assert tokenizer.prompt_text(DIALOGUE[1:]) == "[INST] Hi[/INST] Yes?<|im_end|>[INST] Why?[/INST] "
  with pytest.raises(InputError, match="leaves the system message out"):
    tokenizer.prompt_text(DIALOGUE)


def test_reasoning_is_refused_where_the_template_takes_it_out_of_the_response(tokenizer, with_template):
  reasoned = "<think>so</think>Yes"
  assert tokenizer.decode(tokenizer.encode_responses([reasoned])[0]) == reasoned + "<|im_end|>"
  with pytest.raises(InputError, match="takes the reasoning before </think> out of a response"):
    with_template(REASONING).encode_responses(["Yes", reasoned])
  assert with_template(REASONING).encode_responses(["Yes"])


def test_a_template_that_asks_for_the_date_gets_the_same_one_every_day(with_template):
  assert with_template(DATED).prompt_text([Message("user", "?")]) == "2024-07-26?<|im_end|>2024-07-26"


def test_a_date_that_cannot_be_fixed_is_refused(with_template):
  with pytest.raises(InputError, match="asks for the date in a way that is not known"):
    with_template("{% set form = '%Y' %}" + DATED.replace("'%Y-%m-%d'", "form"))
