"""`python -m smpo`, so that `accelerate launch -m smpo train ...` works."""

from smpo.cli import main

if __name__ == "__main__":
    main()
