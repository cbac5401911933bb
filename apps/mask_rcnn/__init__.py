"""Mask R-CNN (He et al., arXiv:1703.06870) with a feature pyramid; detectron2's 1x: 38.6 box / 35.2 mask AP."""
