"""What tests share: the real programs as processes, trees to move, and independent oracles."""
