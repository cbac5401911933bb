"""``python -m apps.cascade_rcnn COMMAND``."""

import sys

from apps.cascade_rcnn.config import RECIPES
from apps.common.app import App
from apps.common.main import main

if __name__ == "__main__":
    sys.exit(main(App(name="cascade_rcnn", recipes=RECIPES)))
