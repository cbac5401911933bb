"""Trainers assembled from the det packages. Not published: recipes promise no API."""
