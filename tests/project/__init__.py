"""The project itself: its public names, its layers, its documentation, its benchmarks."""
