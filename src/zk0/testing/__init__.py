"""Whether the project itself is sound: what its tests, a simulation, the benchmarks and the coverage came to."""
