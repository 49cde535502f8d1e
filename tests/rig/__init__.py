"""Tools of the tests: the real programs as processes, trees to move, independent oracles."""
