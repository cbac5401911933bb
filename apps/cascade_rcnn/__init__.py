"""Cascade (Mask) R-CNN (Cai and Vasconcelos, arXiv:1712.00726, 1906.09756); detectron2: 42.1 box / 36.4 mask AP."""
