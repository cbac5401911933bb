"""``convert-data``: a data set of any format as COCO's JSON or YOLO."""

from apps.common.app import App
from det_coco.formats.conversion import convert


def convert_data(app: App, args: list[str]) -> None:
    """Convert a data set of any known format to COCO's JSON or YOLO."""
    convert(args, f"apps/{app.name} convert-data")
