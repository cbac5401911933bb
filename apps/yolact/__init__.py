"""YOLACT and YOLACT++ (Bolya et al., arXiv:1904.02689, 1912.06218); R-101 at 550 pixels: 29.8 mask AP."""
