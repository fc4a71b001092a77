"""Seam of the outside world's pair sets: where pairs of images come from and how they are read in bounded memory."""
