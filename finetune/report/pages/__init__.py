"""Pages and console tables of audits, comparisons, evaluations, rankings and sweeps."""
