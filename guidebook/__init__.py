"""The package behind the book "Develop Locally, Deploy to the Cloud".

Importing it loads the standard library only: heavy libraries are imported
inside the functions that need them, so that ``import guidebook`` stays cheap.
"""

__version__ = "0.1.0"
