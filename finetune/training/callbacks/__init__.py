"""Lightning callbacks: checkpoints, metrics, progress, snapshots, stochastic weight averaging."""
