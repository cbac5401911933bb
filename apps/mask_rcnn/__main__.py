"""``python -m apps.mask_rcnn COMMAND``."""

import sys

from apps.common.app import App
from apps.common.main import main
from apps.mask_rcnn.config import RECIPES

if __name__ == "__main__":
    sys.exit(main(App(name="mask_rcnn", recipes=RECIPES)))
