"""Facts with their sources: models, quantizations, hardware, prices."""
