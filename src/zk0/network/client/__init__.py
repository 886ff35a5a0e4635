"""Memberships: a robot owner's part in a federation, a folder ``memberships/NAME`` in which its services work.

A membership is a project in small, as a training is: its ``params.yaml`` names one site, and the pipeline's own stages
check, prepare and cache its data there. Nothing of torch, lerobot or Flower is imported here.
"""
