"""The checks, one module for each group; each module lists its own in ``CHECKS``."""
