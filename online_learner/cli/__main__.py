"""`python -m online_learner.cli`."""

from online_learner.cli import main

if __name__ == "__main__":
    main()
