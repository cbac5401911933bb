"""Faster R-CNN (Ren et al., arXiv:1506.01497) with a feature pyramid; detectron2's 1x: 37.9 box AP."""
