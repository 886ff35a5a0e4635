"""The engine on Ray: sites that train side by side, in workers on one machine or many; see docs/scale.md."""
