"""`python -m isthmus`: the same as the `isthmus` command."""

from isthmus.cli.main import app

if __name__ == "__main__":
    app()
