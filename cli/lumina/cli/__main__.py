"""`python -m lumina.cli` is `lumina`."""

from lumina.cli.main import main

if __name__ == "__main__":
    main()
