"""`python docs/tasks.py`: writes docs/tasks.md, from the tasks themselves: what each says about itself, and an example.

What a task asks, in a line, stands in docs/fields.yaml.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import yaml

from miniwin.evaluation.tasks import TASKS, Task, draw
from miniwin.evaluation.tasks.words import TextTask, WordTask
from miniwin.files.writing import write_text

HERE = Path(__file__).parent
LENGTH = 96  # of the examples, where a task has room for one
SHOWN = 900  # characters of an example
IN_WORDS = " Tasks that have a form in words are asked of models with other tokenizers too."
VARIES = "by Python's version"
TOP = """\
# Tasks

`python docs/tasks.py` writes this page from the tasks. A task asks for something that a model can only know from its
context. It serves as training data, `data: {{source: examples, task: {{type: recall}}}}`, and in suites,
`tasks: [{{task: {{type: recall}}}}]`. Its fields stand in [fields.md](fields.md).

An example has any length from the shortest on: filler makes it longer, and asks for nothing more. Train, valid and test
share no example. One token is one byte.{words}

- **chance**: how often an answer is right that is drawn without reading the context.
- **blind**: how often a model is right that does a part of the task only: it knows what may be answered and what was
  answered before, say, and not where which value belongs. A score has to be above this before it shows the task was
  learnt. The task says below which part.

Both are exact, for the default fields. `Task.chance` and `Task.blind` have them for others.

| task | what it asks | chance | blind | shortest |
|---|---|---|---|---|
"""

WORDS = """
## In words

A model with any tokenizer is asked in sentences: `form: words` in a suite, or in Python:

```python
import miniwin
from miniwin.evaluation.tasks import TASKS
from miniwin.evaluation.words import score_words

model = miniwin.load("miniwin-1m")
score = score_words(model, TASKS["babilong-qa1"](), 1024, examples=4)
print(score.accuracy, score.nats_per_token, score.nats_per_byte)
```

Facts stand in filler, then comes the question, and after `Answer:` what is right, at most `length` tokens in all, <bos>
included. The tokens of an answer are those of the whole text, and its space is part of it. An answer is right if greedy
decoding begins with exactly its tokens, given the answers before it; what follows is not looked at. A passage is the
same at every length and for every tokenizer, and its split is decided without the filler.

- `filler=TextFile(Path("novel.txt"))` from `miniwin.evaluation.tasks.words` puts the facts between the sentences of a
  text. By default they stand among sentences of a grammar of our own.
- `template="<|user|>{{prompt}}<|assistant|>"` asks in a chat: special tokens in it are read as such, and the template
  writes its own <bos>.
- `depth`, a field of some tasks, puts the fact that is asked for at a depth of the context: 0 is its start, 1 its end.

Asked in words: {tasks}.

The suite `ruler` has the tasks of RULER (arXiv:2404.06654) with the published settings, `babilong` tasks 1 to 5 of
BABILong (arXiv:2406.10149). Definitions are the published ones, sentences and names our own: scores are near, not
equal, to those of papers. Where RULER counts several answers in any order, the model writes on greedily and its words
are searched for them. RULER's two question-answering tasks need SQuAD and HotpotQA, and are not here.
"""


def page() -> str:
    means = yaml.safe_load((HERE / "fields.yaml").read_text(encoding="utf-8"))
    tasks = sorted((cls() for cls in TASKS), key=lambda task: task.type)
    assert all(isinstance(task, Task) for task in tasks)
    in_words = any(issubclass(cls, WordTask) for cls in TASKS)
    text = TOP.format(words=IN_WORDS if in_words else "")
    for task in tasks:
        blind = "" if task.blind == task.chance else _share(task.blind)
        asks = means[type(task).__name__]["type"]
        size = VARIES if task.of_this_python else f"{task.shortest} bytes"
        chance = VARIES if task.of_this_python else _share(task.chance)
        text += f"| [{task.type}](#{task.type}) | {asks} | {chance} | {blind} | {size} |\n"
    names = ", ".join(f"[{task.type}](#{task.type})" for task in tasks if isinstance(task, WordTask))
    return text + WORDS.format(tasks=names) + "".join(_section(task) for task in tasks)


def _section(task: Task) -> str:
    module = inspect.getdoc(sys.modules[type(task).__module__]) or ""
    title, _, rest = module.partition("\n\n")
    if task.of_this_python:
        return "\n" + "\n\n".join([f"## {task.type}", title, rest, *_baselines(task)]) + "\n"
    example = draw(task, max(LENGTH, task.shortest), seed=0, index=0, split="test")
    said = example.text.decode("ascii")
    if len(said) > SHOWN:
        said = f"{said[: SHOWN // 2]}[...]{said[-SHOWN // 2 :]}"
    answers = ", ".join(f"`{example.text[start:end].decode().strip()}`" for start, end in example.answers)
    parts = [f"## {task.type}", title, rest, *_baselines(task)]
    parts.append(f"An example of {len(example.text)} bytes, whose answers are {answers}:")
    parts.append("```text\n" + re.sub(r" +$", "", said, flags=re.MULTILINE).strip("\n") + "\n```")
    return "\n" + "\n\n".join(parts) + "\n"


def _baselines(task: Task) -> list[str]:
    """What stands behind the numbers: the words of the class."""
    found = [inspect.getdoc(type(task)) or ""]
    if task.blind != task.chance:
        words = inspect.getdoc(type(task).blind) or ""
        found.append(f"Blind is {_share(task.blind)}: {words[0].lower()}{words[1:]}")
    if isinstance(task, WordTask) and not isinstance(task, TextTask):
        found.append(f"In words, chance is {_share(task.words_chance)}.")
    return found


def _share(share: float) -> str:
    return f"{share:.3g}"


if __name__ == "__main__":
    write_text(HERE / "tasks.md", page())
