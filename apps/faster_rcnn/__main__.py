"""``python -m apps.faster_rcnn COMMAND``."""

import sys

from apps.common.app import App
from apps.common.main import main
from apps.faster_rcnn.config import RECIPES

if __name__ == "__main__":
    sys.exit(main(App(name="faster_rcnn", recipes=RECIPES)))
