"""Client-level differential privacy: what one site's data may change in what a federation releases.

``accountant`` counts what was spent, ``mechanism`` clips and adds noise, ``central`` is the server's use of it and
``site`` a site's own. What is promised, and what is not, is in ``docs/privacy.md``; what it costs is a study
(:mod:`zk0.study.studies`).
"""
