"""``weights [WORD ...]``."""

from apps.common.app import App
from apps.common.like import alike, app_for
from det_backbones import WeightsError, cache_directory, find_weights
from det_models import PublishedDetector, published_detectors
from det_models.published import search

HELP = """usage: apps/{app} weights [WORD ...]

Lists the published detectors that --weights takes by name. With words, it lists
those whose names have all of the words, such as `weights r50 3x`. With a whole
name, it says where the file is published and where it belongs."""


def show_weights(app: App, args: list[str]) -> None:
    """List the published detectors that --weights takes by name."""
    if set(args) & {"-h", "--help"}:
        print(HELP.format(app=app.name))
        return
    if len(args) == 1 and args[0] in published_detectors():
        _show(published_detectors()[args[0]])
        return
    found = [detector for detector in search(args) if app_for(detector.config) == app.name]
    if not found:
        others = sorted({app_for(detector.config) for detector in search(args)})
        hint = f" apps/{others[0]} has some." if others else " Without words all are listed."
        raise WeightsError(f"No published detector of apps/{app.name} has {' '.join(args)} in its name.{hint}")
    print(f"{'AP in per cent':<51}{'box':>6}{'mask':>6}{'points':>8}  here")
    for detector in found:
        figures = (detector.box_ap, detector.mask_ap, detector.keypoint_ap)
        box, mask, points = ("" if figure is None else f"{figure:.1f}" for figure in figures)
        print(f"{detector.name:<51}{box:>6}{mask:>6}{points:>8}  {'yes' if _is_here(detector) else ''}".rstrip())
    print(f"\nUse one by its name:\n  hatch run apps/{app.name} predict --weights {found[0].name} IMAGE")


def _show(detector: PublishedDetector) -> None:
    recipe = alike(detector.config)
    options = "" if recipe is None else f" {' '.join(recipe.options)}".rstrip()
    lines = {
        "its system calls it": detector.config,
        "published figures": f"{detector} on {detector.data}",
        "app": app_for(detector.config),
        "recipe": "none" if recipe is None else f"{'' if recipe.same else 'nearest is '}{recipe.recipe}{options}",
        "published at": detector.url,
        "belongs at": cache_directory() / detector.file,
        "here": find_weights(detector, download=False)
        if _is_here(detector)
        else "no; it is downloaded when it is used",
    }
    for name, value in lines.items():
        print(f"{name:<20}  {value}")


def _is_here(detector: PublishedDetector) -> bool:
    try:
        find_weights(detector, download=False)
    except WeightsError:
        return False
    return True
