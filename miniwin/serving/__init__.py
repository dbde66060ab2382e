"""An OpenAI-compatible server: `miniwin serve`.

extra       the packages that it needs, and the error without them
errors      errors in OpenAI's shape
requests    what a client may send, and what is refused
limits      API key, size of a body, slow bodies, foreign pages
app         the routes
answers     answers and streamed chunks in OpenAI's shapes
logprobs    log-probabilities in the shapes of both APIs
job         one text that is being written
worker      the thread that owns a model: admits, reads prompts, steps, draws
batch       a step for several contexts
kept        states of conversations in memory
disk        states of conversations in a folder
metrics     numbers for Prometheus
server      sockets, signals, and the end
"""
