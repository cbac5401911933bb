"""Detectors in files that :func:`det_models.export` wrote, run by the runtimes that they are for."""
