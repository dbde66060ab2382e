"""`python -m miniwin` is the command line."""

from miniwin.cli import main

main()
