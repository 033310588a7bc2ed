"""Importers: models of other formats become integer graphs, once, with a report that an auditor can follow.

Each format has its own optional dependency, imported when its importer is called.
"""
