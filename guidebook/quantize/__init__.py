"""Making models smaller: each method's tools, made safe to call from a chapter."""
