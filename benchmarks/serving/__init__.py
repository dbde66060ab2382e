"""`python -m benchmarks.serving MODEL`: `miniwin serve`, asked through HTTP by OpenAI's client.

    python -m benchmarks.serving MODEL                        8 sessions at once against one after another
    python -m benchmarks.serving MODEL --conversation TOKENS  a long conversation, before and after a restart
    python -m benchmarks.serving MODEL --soak MINUTES         random sessions, some of which are killed; memory

The server is a process of its own. Both ways of throughput take turns, with the same prompts and seeds; every prompt
begins with a number of its own, so that no kept state helps. `--keep` keeps what was measured in results/, and writes
README.md anew.
"""
