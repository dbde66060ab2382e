"""The chat format of a model: files, and templates rendered as transformers renders them, within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hf_tokenizers import BOS, EOS, EOT, PAD, folder_of, tokenizer_json

import miniwin
from miniwin.chat import ChatFormat, read_chat_format, rendering, template_process
from miniwin.chat.rendering import TemplateProblem, render
from miniwin.specs import UserError
from miniwin.zoo.importing import import_model

MARKED = """{% for message in messages %}
{{ '<|' + message['role'] + '|>' }}
{% generation %}{{ message.content | trim }}{% endgeneration %}<|eot_id|>
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}
"""
TURNS = """{{ bos_token }}{% set found = namespace(first='') %}
{%- if messages[0].role == 'system' %}
    {%- set found.first = messages[0].content ~ '\n' %}
    {%- set messages = messages[1:] %}
{% endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
[{{ role }}]{{ found.first if loop.first else '' }}{{ message.content }}{{ eos_token }}
    {%- if loop.index > 4 %}{% break %}{% endif %}
{%- endfor %}
{%- if tools %}{{ tools | tojson }} {{ dict(a=1) | tojson(indent=2) }}{% endif %}
"""
DAY = """{{ strftime_now('%Y') }}
{%- for m in messages %}{{ m.get('reasoning_content', '') }}{{ m.content[-1].text }}{% endfor %}"""
HELLO = [{"role": "user", "content": "Hi <b> 'you' \U0001f600 "}, {"role": "assistant", "content": "\n Hello\tthere "}]
TOOLS = [{"type": "function", "function": {"name": "f<&>", "parameters": {"é": [1, 2.5, None, True]}}}]
NAMES = {"bos_token": BOS, "eos_token": EOS}


def theirs(template: str, messages: list[dict[str, Any]], **named: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    return str(render_jinja_template([messages], chat_template=template, **named)[0][0])


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("template", [MARKED, TURNS], ids=["marked", "turns"])
def test_a_template_is_rendered_as_transformers_renders_it(template: str, prompted: bool) -> None:
    system = [{"role": "system", "content": "Be {{ brief }}."}, *HELLO, {"role": "user", "content": ""}]
    for messages in (HELLO[:1], HELLO, system, HELLO * 4):
        for tools in (None, TOOLS):
            ours = ChatFormat(template, (), NAMES).render(messages, add_generation_prompt=prompted, tools=tools)
            assert ours == theirs(template, messages, add_generation_prompt=prompted, tools=tools, **NAMES)


def test_days_reasoning_and_parts_are_as_transformers_has_them() -> None:
    messages = [{"role": "assistant", "content": [{"type": "text", "text": "part"}], "reasoning": "since"}]
    assert ChatFormat(DAY).render(messages) == theirs(DAY, messages)
    assert ChatFormat(DAY).render(messages, now="1999-12-31") == "1999sincepart"


def test_what_the_model_says_is_found() -> None:
    [(text, spans)] = render(MARKED, [{"messages": HELLO}], {}, spans=True)
    assert [text[start:end] for start, end in spans] == ["Hi <b> 'you' \U0001f600", "Hello\tthere"]
    assert text == ChatFormat(MARKED).render(HELLO)


HOSTILE = {
    "endless": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "runs too long"),
    "long in one step": ("{{ 9**(9**9) > 1 }}", "runs too long"),
    "wide": ("{{ 'a'|center(10**11) }}", "too much memory"),
    "long": ("{% for i in range(99999) %}{{ 'a'*10000 }}{% endfor %}", "writes more than 16,777,216 characters"),
    "recursive": ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion"),
    "deep": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
    "class": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "globals": ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    "filter": ("{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}", "unsafe"),
    "namespace": ("{% set n = namespace(__class__=1) %}", "may not hold"),
    "dict": ("{{ dict.mro() }}", "no attribute"),
    "messages": ("{{ messages.append(1) }}", "unsafe"),
    "file": ("{% include '/etc/passwd' %}", "no loader"),
    "syntax": ("a\n{% if %}", "line 2"),
    "terminal": ("{{ raise_exception('no \x1b[31m\nsystem') }}", r"no \x1b[31m\nsystem"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_one_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template, said = HOSTILE[name]
    monkeypatch.setattr(rendering, "SECONDS", 0.1)
    with pytest.raises(UserError, match=r"^chat template: ") as refused:
        ChatFormat(template).render(HELLO)
    assert said in str(refused.value) and len(str(refused.value)) < 500
    assert ChatFormat("{{ messages[0].role }}").render(HELLO) == "user"  # the next one is served


def test_the_chat_that_a_template_refuses_is_named() -> None:
    template = "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}"
    with pytest.raises(TemplateProblem, match="one only") as refused:
        render(template, [{"messages": [1]}, {"messages": [1, 2]}, {"messages": [1]}], {})
    assert refused.value.chat == 1


def test_the_process_has_its_limits() -> None:
    assert rendering.SECONDS <= 2 and template_process.MEMORY <= 1 << 30


@pytest.mark.parametrize("messages", [[], "Hi", [{"content": "Hi"}], ["Hi"], [{"role": 1, "content": ""}]])
def test_what_is_no_message_is_refused(messages: Any) -> None:
    with pytest.raises(UserError, match=r"^messages"):
        ChatFormat(MARKED).render(messages)


# -- files


def test_a_format_is_written_and_read_back(tmp_path: Path) -> None:
    assert read_chat_format(tmp_path) is None
    given = ChatFormat("a\n{{ bos_token }}\n", (EOT, EOS), NAMES, 64)
    given.write(tmp_path)
    assert read_chat_format(tmp_path) == given


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("[]", "end_tokens"),
        ('{"format": 1, "end_tokens": [1]}', "end_tokens"),
        ('{"format": 9, "end_tokens": []}', "this version reads 1"),
        ('{"format": 1, "end_tokens": [], "bos_token": 3}', "bos_token"),
        ("{", "not JSON"),
        (None, "cannot be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, tokens: str | None, said: str) -> None:
    (tmp_path / "chat_template.jinja").write_text("x")
    if tokens is not None:
        (tmp_path / "chat.json").write_text(tokens)
    with pytest.raises(UserError, match=r"chat\.json") as refused:
        read_chat_format(tmp_path)
    assert said in str(refused.value)


# -- from Hugging Face


def imported(tmp_path: Path, template: Any, generation: dict[str, Any] | None = None, **settings: Any) -> Any:
    text = tokenizer_json()
    folder = folder_of(tmp_path / "hf", text, {}, generation, **{"chat_template": template, **settings})
    return import_model(folder, tmp_path / "ours")


def test_an_import_brings_the_chat_format(tmp_path: Path) -> None:
    made = imported(tmp_path, MARKED, {"eos_token_id": 2}, pad_token={"content": PAD, "special": True})
    model = miniwin.load(made.folder)
    assert model.chat_format == ChatFormat(MARKED, (EOS, EOT), NAMES | {"pad_token": PAD}, 512)
    assert model.tokenizer is not None and model.chat_format.end_ids(model.tokenizer) == (2, 3)
    text = model.chat_format.render(HELLO)
    ids = model.tokenizer.encode_marked(text)
    assert ids.count(3) == 2 and ids[0] != 1  # special tokens are tokens, and nothing is put in front
    assert model.tokenizer.decode(ids) == text
    record = json.loads((made.folder / "import.json").read_text())
    assert record["end_tokens"] == [EOS, EOT] and "tokenizer_config.json" in record["files"]


def test_a_file_comes_before_a_field_and_default_before_others(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": MARKED}]
    assert miniwin.load(imported(tmp_path / "a", named).folder).chat_format.template == MARKED  # type: ignore[union-attr]
    folder = folder_of(tmp_path / "hf", tokenizer_json(), {}, chat_template="no")
    (folder / "chat_template.jinja").write_text(TURNS)
    model = miniwin.load(import_model(folder, tmp_path / "b").folder)
    assert model.chat_format is not None and model.chat_format.template == TURNS


@pytest.mark.parametrize(("template", "said"), [("{% if %}", "line 1"), ("x", None), ("x" * (1 << 20) + "y", "larger")])
def test_a_template_that_cannot_be_used_is_noted(tmp_path: Path, template: str, said: str | None) -> None:
    made = imported(tmp_path, template, eos_token=EOS if said else None)
    assert made.notes == [f"the chat template is left out: {made.notes[0].partition(': ')[2]}"]
    assert (said or "no token of the tokenizer ends an answer") in made.notes[0]
    assert not (made.folder / "chat_template.jinja").exists() and miniwin.load(made.folder).chat_format is None


def test_a_model_without_a_template_has_no_chat_format(tmp_path: Path) -> None:
    made = imported(tmp_path, None)
    assert {path.name for path in made.folder.iterdir()} == {
        *("model.yaml", "model.safetensors", "tokenizer.json", "import.json")
    }
    assert "end_tokens" not in made.record and miniwin.load(made.folder).chat_format is None


def test_a_template_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer_config.json: chat_template: got 3"):
        imported(tmp_path, 3)
    assert not (tmp_path / "ours").exists()
