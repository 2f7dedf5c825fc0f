"""`python -m bertport.runtime` is the command line."""

from bertport.runtime.cli import main

main()
