"""What the tests of the packages and of the apps share; not published, on the path of every run of pytest."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
