"""Whether a valid recording is a good one: remarks about its episodes, from their numbers and small pictures.

Nothing here refuses or leaves out anything. Each module holds one family of remarks, as pure functions; each threshold
is a named constant with its reason. A sound recording must get no remark, so all of them sit far beyond what recordings
of a working arm show.
"""
