"""RetinaNet (Lin et al., arXiv:1708.02002) and FCOS (Tian et al., arXiv:1904.01355); R-50, 1x: 37.4 box AP."""
