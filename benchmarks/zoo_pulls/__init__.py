"""`python -m benchmarks.zoo_pulls`: pulls from a server that does all it can to spoil them, races, and kills.

Pulls. A web server on this machine serves a small zoo. For each of 200 pulls it draws faults, by a seed: for the index,
and for every source of every file. It drops connections, falls silent, stops in the middle, sends too little, too much
or without an end, changes a byte, lies about lengths and ranges, ignores `Range`, redirects, and answers with errors.
Each pull is a process, `miniwin zoo pull`, whose time-outs are shortened to five seconds. It has to end with the right
bytes or with one clear error. Then the same command is given again, and the server behaves: this has to succeed. All
the while the server compares what is asked for with what it has delivered: only what is missing may be asked for.

Races. Ten processes pull one model at once. Each file may be asked for once, and all ten have to succeed.

Kills. `miniwin zoo pull`, `publish` and `verify` are killed with SIGKILL at 50 random moments. What is there then has
to be whole. The same command again has to succeed, and leave the same files as a command that nobody killed.

One line is printed for each thing that has to hold. The exit code is 1 if any does not. With `--write`, `results.json`
and `README.md` beside this file keep the result.
"""
