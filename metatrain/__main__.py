"""`python -m metatrain`."""

from metatrain.cli import main

main()
