"""Trainings: one owner's data, one policy, a folder ``trainings/NAME`` in which a federation of one site runs.

A training is a project in small: its ``params.yaml`` names one site, and the pipeline's own stages run in its folder.
Nothing heavy is imported before a step runs, so that what cannot be is refused at once.
"""
