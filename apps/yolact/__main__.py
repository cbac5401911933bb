"""``python -m apps.yolact COMMAND``."""

import sys

from apps.common.app import App
from apps.common.main import main
from apps.yolact.config import RECIPES

if __name__ == "__main__":
    sys.exit(main(App(name="yolact", recipes=RECIPES)))
