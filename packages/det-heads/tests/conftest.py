from testing.detectors import make_batch, make_config, make_detector

__all__ = ["make_batch", "make_config", "make_detector"]
