"""The local loop, the proximal term and the schedule."""
