"""Adapters of AdapterHub's `adapters` package, read and written: the same weights under other names."""

from guidebook.adapters.adapterhub.reading import import_adapterhub
from guidebook.adapters.adapterhub.writing import export_adapterhub

__all__ = ["export_adapterhub", "import_adapterhub"]
