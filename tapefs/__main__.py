"""`python -m tapefs` is the command `tapefs`."""

from tapefs.cli import main

if __name__ == "__main__":
    main()
