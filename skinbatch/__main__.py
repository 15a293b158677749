"""`python -m skinbatch`: the same as the command."""

from skinbatch.cli import main

main()
