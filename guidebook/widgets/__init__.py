"""Controls for JupyterLab; each stands on a function that answers without them."""
